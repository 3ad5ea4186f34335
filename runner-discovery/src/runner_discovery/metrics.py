"""Prometheus metrics of the registry, read on collection."""

from prometheus_client import CollectorRegistry, Gauge

from runner_discovery.registry import Registry


def add_metrics(metrics: CollectorRegistry, registry: Registry) -> None:
    numbers = (
        ("runners", "Live runners.", lambda: registry.runner_count),
        ("algorithms", "Algorithms that were registered once.", lambda: registry.algorithm_count),
        ("conflicts", "Live runners with an outdated schema of an algorithm.", lambda: registry.conflicts.counts()[0]),
        ("clashes", "Live runners that offer an algorithm of another owner.", lambda: registry.conflicts.counts()[1]),
        ("bytes", "Size of what is registered, at most 16 MiB.", lambda: registry.total_bytes),
        ("index", "Number of changes of the catalogue.", lambda: registry.index),
    )
    for name, text, read in numbers:
        Gauge(f"runner_discovery_{name}", text, registry=metrics).set_function(read)
