"""A gateway in a process of its own, on RabbitMQ and PostgreSQL. Any number of them work side by side."""

from contextlib import AsyncExitStack

from producer.gateway.build import build
from producer.gateway.doors import Doors
from producer.gateway.settings import GatewaySettings
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.metrics import new_registry
from taskqueue.opening import STORE, opened, opened_when_there
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue


class GatewayService:
    """What :func:`run_service` starts; :meth:`enter` returns when the store has been opened."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.server: HttpServer | None = None

    async def enter(self, stack: AsyncExitStack) -> None:
        """The door opens first, to tell what the others wait for; it is closed before what stands behind it."""
        settings = self._settings
        health, registry = Health(STORE), new_registry()
        behind = await stack.enter_async_context(AsyncExitStack())
        # It never consumes, so it needs none of the delay queues: controllers declare those.
        queue = open_rabbitmq(settings.queue, retry_steps_seconds=(), report=health.set)
        broker = await opened(behind, queue)
        doors = Doors(health, registry)
        self.server = await stack.enter_async_context(HttpServer(doors, settings.host, settings.port))
        store = await opened_when_there(behind, lambda: open_postgres(settings.database_url), health.set)
        watch = await behind.enter_async_context(CatalogueWatch(settings.discovery))
        doors.open(build(stack, settings, RecordedQueue(broker, store), store, watch, health, registry))
