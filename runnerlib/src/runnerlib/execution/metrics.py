"""Metrics of the runs. They are counted in plain numbers and formatted only when ``/metrics`` is read."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        rows, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class RunMetrics(Collector):
    """A collector of its own: with the library's metrics, counting a run would cost as much as a run may cost."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, _Histogram] = defaultdict(partial(_Histogram, _SECONDS))
        self._sizes: defaultdict[str, _Histogram] = defaultdict(partial(_Histogram, _SIZES))
        self._restarts: Counter[tuple[str, str]] = Counter()
        self._busy: dict[str, int] = {}
        self._slots: dict[str, int] = {}

    def outcome(self, algorithm: str, outcome: str, seconds: float | None) -> None:
        """`outcome` is a state, or the code of a failure."""
        self._outcomes[algorithm, outcome] += 1
        if seconds is not None:
            self._seconds[algorithm].observe(seconds)

    def call(self, algorithm: str, size: int) -> None:
        self._sizes[algorithm].observe(size)

    def slots(self, group: str, count: int) -> None:
        self._slots[group] = count
        self._busy.setdefault(group, 0)

    def busy(self, group: str, count: int) -> None:
        self._busy[group] = count

    def restart(self, group: str, reason: str) -> None:
        self._restarts[group, reason] += 1

    def collect(self) -> Iterable[Metric]:
        yield _counter("runner_runs", "Runs that ended.", ["algorithm", "outcome"], self._outcomes)
        yield _histogram("runner_run_seconds", "Seconds in the handler.", self._seconds)
        yield _histogram("runner_call_tasks", "Tasks in one call of a worker process.", self._sizes)
        yield _gauge("runner_slots", "Calls that can be on at the same time.", self._slots)
        yield _gauge("runner_slots_busy", "Calls that are on.", self._busy)
        help = "Worker processes that were replaced."
        yield _counter("runner_process_restarts", help, ["group", "reason"], self._restarts)


def _counter(name: str, help: str, labels: list[str], counts: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(name, help, labels=labels)
    for key, count in counts.items():
        family.add_metric(list(key), count)
    return family


def _gauge(name: str, help: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=["group"])
    for group, value in values.items():
        family.add_metric([group], value)
    return family


def _histogram(name: str, help: str, histograms: Mapping[str, _Histogram]) -> Metric:
    family = HistogramMetricFamily(name, help, labels=["algorithm"])
    for algorithm, histogram in histograms.items():
        family.add_metric([algorithm], histogram.buckets(), histogram.sum)
    return family
