"""The controller's metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SECONDS_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class ControllerMetrics:
    """All metrics of one controller, in the registry it is given. No ids as labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.taken = Counter("controller_tasks_taken", "Tasks taken from the queue.", ["algorithm"], registry=registry)
        self.arrivals = Counter(
            "controller_arrivals",
            "Messages in a broker's ingress queue: forwarded, parked or refused.",
            ["verdict"],
            registry=registry,
        )
        self.outcomes = Counter(
            "controller_outcomes",
            "Outcomes of runs, e.g. succeeded, retrying, failed, cancelled, dropped, with the failure's code.",
            ["algorithm", "outcome", "code"],
            registry=registry,
        )
        self.batch_size = Histogram(
            "controller_batch_size",
            "Tasks in one call to a runner.",
            ["algorithm"],
            buckets=_BATCH,
            registry=registry,
        )
        self.dispatch_seconds = Histogram(
            "controller_dispatch_seconds",
            "From the call to a runner until every task in it has an outcome.",
            ["algorithm"],
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.quarantines = Counter(
            "controller_runner_quarantines", "Runners that could not be reached.", ["runner"], registry=registry
        )
        self._in_flight = Gauge(
            "controller_in_flight", "Tasks that this controller is responsible for.", registry=registry
        )

    def count_in_flight(self, count: Callable[[], int]) -> None:
        self._in_flight.set_function(count)
