"""``python -m runner_discovery``: settings, logs, then the registry until a signal stops it."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from pydantic import TypeAdapter, ValidationError

from runner_discovery.app import create_discovery_app
from runner_discovery.host_rule import HostRule
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.records import SavedRunner
from runner_discovery.settings import Settings
from runner_discovery.snapshot_file import SnapshotFile
from runnerlib.contract.identity import RunnerKeys, run_token_of
from runnerlib.contract.registry import RunnerName
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import run_service
from runnerlib.service.logs import configure_logging, get_logger
from runnerlib.service.settings import load_settings

log = get_logger("runner_discovery")

_SECONDS_A_DAY = 86_400.0


def may_be_remembered(hosts: HostRule, keys: RunnerKeys | None, saved: SavedRunner) -> bool:
    """Whether a runner that an earlier process knew could have registered with this one."""
    knows_key = keys is None or keys.has(saved.origin.key_id)
    return knows_key and hosts.still_allows(saved.registration.host, saved.origin)


def build(settings: Settings) -> Callable[[AsyncExitStack], Awaitable[None]]:
    """Returns what `runnerlib.service.lifecycle.run_service` starts."""

    async def enter(stack: AsyncExitStack) -> None:
        file = SnapshotFile(settings.snapshot_path)
        keep_seconds = settings.retention_days * _SECONDS_A_DAY
        lease_seconds, keys = settings.lease_seconds, settings.keys
        hosts = HostRule(settings.host, settings.runner_hosts)
        keeps = partial(may_be_remembered, hosts, keys)
        live = await stack.enter_async_context(
            LiveRegistry(
                file,
                lease_seconds=lease_seconds,
                keep_seconds=keep_seconds,
                keeps=keeps,
            )
        )
        app = create_discovery_app(live, Health(), hosts, keys, settings.metrics_token.get_secret_value())
        server = await stack.enter_async_context(HttpServer.of(app, settings, setting="RUNNER_DISCOVERY_PORT"))
        # Runs before the server stops: pending blocking queries are answered, so that they do not delay it.
        stack.callback(live.release)
        log.info("runner discovery listens", host=settings.host, port=server.port, epoch=live.registry.epoch)

    return enter


_USAGE = """\
usage: python -m runner_discovery                     the registry
       python -m runner_discovery token NAME          the token of runner NAME, for its RUNNER_TOKEN_FILE
       python -m runner_discovery token NAME --runs   the token that allows to send it runs, to try it out
RUNNER_KEYS_FILE names the file with the environment's keys."""


def print_token(settings: Settings, words: list[str]) -> int:
    """Prints a token that is made from the keys; returns the exit code."""
    names = [word for word in words if word != "--runs"]
    if len(names) != 1 or not names[0] or settings.keys is None:
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        TypeAdapter(RunnerName).validate_python(names[0])
    except ValidationError as error:
        print(f"no runner can have this name: {error.errors()[0]['msg']}", file=sys.stderr)
        return 2
    token = settings.keys.runner_token(names[0])
    print(run_token_of(token) if "--runs" in words else token)
    return 0


def main() -> int:
    settings = load_settings(Settings)
    if sys.argv[1:2] == ["token"]:
        return print_token(settings, sys.argv[2:])
    configure_logging("runner-discovery", settings)
    return run_service(build(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
