"""What a handler gets when it asks for ``metrics``: Prometheus metrics without the bookkeeping."""

from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound=MetricWrapperBase)


class Metrics:
    """Makes each metric once: asking again by the same name gives the same one, so a handler may ask at every call."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._made: dict[str, MetricWrapperBase] = {}

    def counter(self, name: str, description: str = "", labels: Sequence[str] = ()) -> Counter:
        return self._get(Counter, name, description, labels)

    def gauge(self, name: str, description: str = "", labels: Sequence[str] = ()) -> Gauge:
        return self._get(Gauge, name, description, labels)

    def histogram(self, name: str, description: str = "", labels: Sequence[str] = ()) -> Histogram:
        return self._get(Histogram, name, description, labels)

    def _get(self, kind: type[M], name: str, description: str, labels: Sequence[str]) -> M:
        made = self._made.get(name)
        if made is None:
            made = kind(name, description or name, labels, registry=self.registry)
            self._made[name] = made
        if not isinstance(made, kind):
            raise ValueError(f"metric {name!r} is a {type(made).__name__.lower()} already; use another name")
        return made
