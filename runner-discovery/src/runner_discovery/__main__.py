"""``python -m runner_discovery``: settings, logs, then the registry until a signal stops it."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from runner_discovery.app import create_discovery_app
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.settings import Settings
from runner_discovery.snapshot_file import SnapshotFile
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import run_service
from runnerlib.service.logs import configure_logging, get_logger
from runnerlib.service.settings import load_settings

log = get_logger("runner_discovery")

_SECONDS_A_DAY = 86_400.0


def build(settings: Settings) -> Callable[[AsyncExitStack], Awaitable[None]]:
    """Returns what `runnerlib.service.lifecycle.run_service` starts."""

    async def enter(stack: AsyncExitStack) -> None:
        file = SnapshotFile(settings.snapshot_path)
        keep_seconds = settings.retention_days * _SECONDS_A_DAY
        live = await stack.enter_async_context(
            LiveRegistry(file, lease_seconds=settings.lease_seconds, keep_seconds=keep_seconds)
        )
        app = create_discovery_app(live, Health())
        server = await stack.enter_async_context(HttpServer.of(app, settings, setting="RUNNER_DISCOVERY_PORT"))
        # Runs before the server stops: pending blocking queries are answered, so that they do not delay it.
        stack.callback(live.release)
        log.info("runner discovery listens", host=settings.host, port=server.port, epoch=live.registry.epoch)

    return enter


def main() -> int:
    settings = load_settings(Settings)
    configure_logging("runner-discovery", settings)
    return run_service(build(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
