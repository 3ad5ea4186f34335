"""Puts the gateway together, alone or beside the controller in one process."""

from contextlib import AsyncExitStack

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from producer.gateway.app import create_gateway_app
from producer.gateway.desk import Desk
from producer.gateway.payload_check import PayloadChecks
from producer.gateway.settings import GatewaySettings
from producer.gateway.submission import Admission, Known
from producer.gateway.telemetry import GatewayMetrics
from runnerlib.service.health import Health
from taskqueue.protocols import TaskQueue, TaskStore

PART = "gateway"


def build(
    stack: AsyncExitStack,
    settings: GatewaySettings,
    queue: TaskQueue,
    store: TaskStore,
    watch: Known,
    health: Health,
    registry: CollectorRegistry,
) -> FastAPI:
    """The application; serve it with ``HttpServer(app, settings.host, settings.port)`` on the same stack.

    Queue, store and watch are open already and belong to the caller.
    """
    admission = Admission(watch, PayloadChecks(), settings.max_message_bytes)
    desk = Desk(queue, store, watch, admission, GatewayMetrics(registry))
    app = create_gateway_app(desk, store, watch, settings.max_message_bytes, health, registry)
    health.set(PART, True)
    stack.callback(health.set, PART, False, "stopping")
    return app
