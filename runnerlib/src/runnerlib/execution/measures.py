"""What ``/metrics`` tells of the runs. Counted in plain numbers, written out when somebody asks."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        rows, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows, self._sum


class Measures(Collector):
    """Registered as a collector: the library's own metrics cost as much for each run as a run may."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[str, _Histogram] = {}
        self._sizes: dict[str, _Histogram] = {}
        self._restarts: Counter[tuple[str, str]] = Counter()
        self._busy: dict[str, int] = {}
        self._slots: dict[str, int] = {}

    def outcome(self, algorithm: str, outcome: str, seconds: float | None) -> None:
        """`outcome` is a state, or the code of a failure."""
        self._outcomes[algorithm, outcome] += 1
        if seconds is not None:
            self._histogram(self._seconds, algorithm, _SECONDS).observe(seconds)

    def call(self, algorithm: str, size: int) -> None:
        self._histogram(self._sizes, algorithm, _SIZES).observe(size)

    def slots(self, group: str, count: int) -> None:
        self._slots[group] = count
        self._busy.setdefault(group, 0)

    def busy(self, group: str, count: int) -> None:
        self._busy[group] = count

    def restart(self, group: str, reason: str) -> None:
        self._restarts[group, reason] += 1

    def collect(self) -> Iterable[Metric]:
        yield self._counter("runner_runs", "Runs that ended.", ["algorithm", "outcome"], self._outcomes)
        yield self._histograms("runner_run_seconds", "Seconds in the handler.", self._seconds)
        yield self._histograms("runner_call_tasks", "Tasks in one call of a worker process.", self._sizes)
        yield self._gauge("runner_slots", "Calls that can be on at the same time.", self._slots)
        yield self._gauge("runner_slots_busy", "Calls that are on.", self._busy)
        yield self._counter(
            "runner_process_restarts", "Worker processes that were replaced.", ["group", "reason"], self._restarts
        )

    @staticmethod
    def _histogram(kept: dict[str, _Histogram], name: str, bounds: tuple[float, ...]) -> _Histogram:
        found = kept.get(name)
        if found is None:
            found = kept[name] = _Histogram(bounds)
        return found

    @staticmethod
    def _counter(name: str, text: str, labels: list[str], counts: "Counter[tuple[str, str]]") -> Metric:
        family = CounterMetricFamily(name, text, labels=labels)
        for key, count in counts.items():
            family.add_metric(list(key), count)
        return family

    @staticmethod
    def _gauge(name: str, text: str, values: dict[str, int]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["group"])
        for group, value in values.items():
            family.add_metric([group], value)
        return family

    @staticmethod
    def _histograms(name: str, text: str, kept: dict[str, _Histogram]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=["algorithm"])
        for algorithm, histogram in kept.items():
            buckets, total = histogram.buckets()
            family.add_metric([algorithm], buckets, total)
        return family
