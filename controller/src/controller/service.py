"""A controller in a process of its own, on RabbitMQ and PostgreSQL. Any number of them work side by side."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from controller.app import create_controller_app
from controller.build import build
from controller.settings import ControllerSettings
from controller.store_gate import STORE
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.metrics import new_registry
from taskqueue.opening import opened, opened_when_there
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import DOOR_PART, open_rabbitmq


def service(settings: ControllerSettings) -> Callable[[AsyncExitStack], Awaitable[None]]:
    """What :func:`run_service` starts. Health answers all the time: it tells what is waited for."""

    async def enter(stack: AsyncExitStack) -> None:
        health, registry = Health(STORE, DOOR_PART), new_registry()
        app = create_controller_app(health, registry)
        await stack.enter_async_context(HttpServer(app, settings.host, settings.port))
        broker = open_rabbitmq(settings.queue, retry_steps_seconds=settings.retry_steps_seconds, report=health.set)
        queue = await opened(stack, broker)
        store = await opened_when_there(stack, lambda: open_postgres(settings.database_url), health.set)
        watch = await stack.enter_async_context(CatalogueWatch(settings.discovery))
        door = await queue.front_door()
        await build(stack, settings, queue, store, watch, health, registry, sweeper=store, door=door)

    return enter
