"""Puts the registry together."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from runner_discovery.app import create_discovery_app
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.settings import Settings
from runner_discovery.snapshot_file import SnapshotFile
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

_SECONDS_A_DAY = 86_400.0


def build(settings: Settings) -> Callable[[AsyncExitStack], Awaitable[None]]:
    """What :func:`runnerlib.service.lifecycle.run_service` starts."""

    async def enter(stack: AsyncExitStack) -> None:
        file = SnapshotFile(settings.snapshot_path)
        keep_seconds = settings.retention_days * _SECONDS_A_DAY
        live = await stack.enter_async_context(
            LiveRegistry(file, lease_seconds=settings.lease_seconds, keep_seconds=keep_seconds)
        )
        app = create_discovery_app(live, Health())
        server = await stack.enter_async_context(
            HttpServer(app, settings.host, settings.port, setting="RUNNER_DISCOVERY_PORT")
        )
        # Left before the server: who waits for a change is answered, so that the stop is not held up.
        stack.callback(live.release)
        log.info("runner discovery listens", host=settings.host, port=server.port, epoch=live.registry.epoch)

    return enter
