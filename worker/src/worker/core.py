"""``python -m worker.core``: controller and gateway in one process, because a SQLite file has one owner."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from controller.build import build as build_controller
from controller.settings import ControllerSettings
from producer.gateway.build import build as build_gateway
from producer.gateway.proxies import behind_proxies
from producer.gateway.settings import GatewaySettings
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import StartupError, run_service
from runnerlib.service.logs import configure_logging
from runnerlib.service.metrics import new_registry
from runnerlib.service.settings import load_settings
from runnerlib.service.tls import client_trust
from taskqueue.connect import open_embedded
from taskqueue.errors import TaskQueueError
from worker.plan import CORE
from worker.settings import WorkerSettings

DATABASE = "tasks.sqlite"


def build(
    file: Path, gateway: GatewaySettings, controller: ControllerSettings
) -> Callable[[AsyncExitStack], Awaitable[None]]:
    """What :func:`run_service` starts. It stops in reverse: no new tasks, then no new runs, then the file closes."""

    async def enter(stack: AsyncExitStack) -> None:
        health, registry = Health(), new_registry()
        try:
            queue, store = await stack.enter_async_context(open_embedded(file))
        except TaskQueueError as error:
            raise StartupError(str(error)) from None
        watch = await stack.enter_async_context(
            CatalogueWatch(gateway.discovery, gateway.service_token, tls=client_trust(gateway.ca_certificates_file))
        )
        await build_controller(stack, controller, queue, store, watch, health, registry, sweeper=queue)
        app = build_gateway(stack, gateway, queue, store, watch, health, registry)
        reached = behind_proxies(app, gateway.root_path, gateway.proxies)
        await stack.enter_async_context(HttpServer.of(reached, gateway, setting="GATEWAY_PORT"))

    return enter


def main() -> int:
    gateway = load_settings(GatewaySettings)
    configure_logging(CORE, gateway)
    file = load_settings(WorkerSettings).data_folder / DATABASE
    return run_service(build(file, gateway, load_settings(ControllerSettings)), gateway)


if __name__ == "__main__":
    sys.exit(main())
