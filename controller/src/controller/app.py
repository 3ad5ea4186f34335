"""The HTTP side of a controller in a process of its own: health and metrics."""

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from runnerlib.service.health import Health
from runnerlib.service.web import create_app


def create_controller_app(health: Health, registry: CollectorRegistry) -> FastAPI:
    """Ready means: discovery has answered, the store takes writes, every lane works."""
    return create_app("Controller", health=health, registry=registry, description="Health and metrics.")
