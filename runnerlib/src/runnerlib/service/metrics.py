"""Registries for Prometheus metrics; one for each process, made where the process is composed."""

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector


def new_registry() -> CollectorRegistry:
    """A registry with the process's memory, CPU, open files and Python version."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
