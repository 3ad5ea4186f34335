"""``python -m controller``: a controller in a process of its own, on RabbitMQ and PostgreSQL.

Any number of them work side by side.
"""

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from controller.build import build
from controller.commit_gate import STORE
from controller.settings import ControllerSettings
from runnerlib.service.access import COMMON_RULES, METRICS_PATH, Role, RouteTable, guard_peers, identify
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import run_service
from runnerlib.service.metrics import new_registry
from runnerlib.service.tls import client_trust
from runnerlib.service.web import create_app
from taskqueue.lanes import LanedQueue
from taskqueue.opening import opened, opened_when_there
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import INGRESS_PART, open_rabbitmq
from taskqueue.settings import load_for_servers

#: Who may call what where this environment has keys.
ROUTES = RouteTable({**COMMON_RULES, ("GET", METRICS_PATH): frozenset({Role.SERVICE, Role.METRICS})})


def main() -> int:
    settings = load_for_servers(ControllerSettings, "controller")
    return run_service(service(settings), settings)


def service(settings: ControllerSettings) -> Callable[[AsyncExitStack], Awaitable[None]]:
    """What :func:`run_service` starts.

    Health answers from the beginning and names what is waited for. Ready means: discovery has answered, the store
    takes writes, and every consumer works.
    """

    async def enter(stack: AsyncExitStack) -> None:
        health, registry = Health(STORE, INGRESS_PART), new_registry()
        app = create_app("Controller", health=health, registry=registry, description="Health and metrics.")
        if settings.keys is not None:
            guard_peers(app, ROUTES, partial(identify, settings.keys), settings.metrics_token.get_secret_value())
        await stack.enter_async_context(HttpServer.of(app, settings))
        broker = open_rabbitmq(settings.queue, retry_steps_seconds=settings.retry_steps_seconds, report=health.set)
        queue = await opened(stack, broker)
        store = await opened_when_there(stack, lambda: open_postgres(settings.database_url), health.set)
        lanes = LanedQueue(queue, await stack.enter_async_context(store.open_queue()))
        watch = await stack.enter_async_context(
            CatalogueWatch(settings.discovery, settings.service_token, tls=client_trust(settings.ca_certificates_file))
        )
        door = await queue.ingress_feed()
        await build(stack, settings, lanes, store, watch, health, registry, sweeper=store, door=door, ledger=store)

    return enter


if __name__ == "__main__":
    sys.exit(main())
