"""The gateway's own metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class GatewayMetrics:
    """Metrics of one gateway, on the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._submissions = Counter(
            "gateway_submissions",
            "Messages that came in, by algorithm (known ones; else `unknown`) and outcome.",
            ["algorithm", "outcome"],
            registry=registry,
        )
        self.waits = Gauge("gateway_waits", "Requests that wait for a result.", registry=registry)

    def submitted(self, algorithm: str | None, outcome: str, is_known: bool, count: int = 1) -> None:
        """`outcome`: accepted, duplicate, or a problem code. Names that senders made up never become label values."""
        label = algorithm if is_known and algorithm is not None else "unknown"
        self._submissions.labels(label, outcome).inc(count)
