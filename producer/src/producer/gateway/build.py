"""Puts the gateway together, alone or beside the controller in one process."""

from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from producer.gateway.app import create_gateway_app
from producer.gateway.counts import CountsCache
from producer.gateway.dead_desk import DeadDesk
from producer.gateway.desk import Desk
from producer.gateway.routes import gateway_routers
from producer.gateway.settings import GatewaySettings
from producer.gateway.store_watch import StoreWatch
from producer.gateway.submission import Admission, Known
from producer.gateway.telemetry import GatewayMetrics
from producer.gateway.waiting_for import waiting_for
from runnerlib.service.health import Health
from runnerlib.service.lifecycle import background
from taskqueue.errors import StoreUnavailable, TaskQueueError
from taskqueue.protocols import Replayer, TaskQueue, TaskStore
from taskqueue.recorded import RecordedQueue

PART = "gateway"


class GatewayQueue(TaskQueue, Replayer, Protocol):
    """A queue that failed tasks can be put back into."""


def build(
    stack: AsyncExitStack,
    settings: GatewaySettings,
    queue: GatewayQueue,
    store: TaskStore,
    watch: Known,
    health: Health,
    registry: CollectorRegistry,
) -> ASGIApp:
    """The application; serve it with ``HttpServer(app, settings.host, settings.port)`` on the same stack.

    Queue, store and watch are open already and belong to the caller.
    """
    admission = Admission(watch, settings.max_message_bytes)
    desk = Desk(queue, store, watch, admission, GatewayMetrics(registry))
    why = partial(waiting_for, known=watch, unknown_grace_seconds=settings.unknown_algorithm_grace_seconds)
    routers = gateway_routers(desk, DeadDesk(store, queue), watch, CountsCache(store), why)
    store_watch = StoreWatch(store, health)
    background(stack, store_watch.watch(), "store watch")
    # A broker's connection tells readiness about itself; the embedded queue is the same file as the store.
    told = StoreUnavailable if isinstance(queue, RecordedQueue) else TaskQueueError

    def unavailable(error: Exception) -> None:
        if isinstance(error, told):
            store_watch.refused(str(error))

    app = create_gateway_app(routers, watch, settings.max_message_bytes, health, registry, unavailable)
    health.set(PART, True)
    stack.callback(health.set, PART, False, "stopping")
    return app
