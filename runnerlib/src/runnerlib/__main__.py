"""``python -m runnerlib``: serves the adapter, or tries it without an environment around it."""

from runnerlib.import_path import put_current_folder_last

if __name__ == "__main__":
    put_current_folder_last()

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runnerlib import commands
from runnerlib.adapter.errors import AdapterError
from runnerlib.leftovers import own_temporary_folder
from runnerlib.service.logs import configure_logging
from runnerlib.service.settings import load_settings
from runnerlib.settings import RunnerSettings


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit code."""
    chosen = _build_parser().parse_args(arguments)
    if chosen.command in (None, "serve"):
        return _serve()
    settings = load_settings(RunnerSettings)
    configure_logging("runner", settings)
    try:
        with own_temporary_folder():
            return _run(chosen, settings)
    except AdapterError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace, settings: RunnerSettings) -> int:
    path = chosen.path or settings.runner_adapter
    fetch_rules = settings.fetch_rules
    match chosen.command:
        case "check":
            return commands.check(path, settings.device, fetch_rules, self_test=chosen.self_test)
        case "run":
            return commands.run(path, settings.device, fetch_rules, chosen.algorithm, chosen.payload)
        case "schemas":
            return commands.schemas(path)
        case _:
            return commands.shell(path, settings.device, fetch_rules)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runnerlib", description="The command line: which command, with what."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    subparsers.add_parser("serve", help="serve the adapter over HTTP and register it (the default)")
    command = subparsers.add_parser("check", help="say what is untyped, unserialisable or misspelt; calls nothing")
    command.add_argument(
        "--self-test", action="store_true", help="also load everything and run the docstrings' examples"
    )
    _add_path(command)
    command = subparsers.add_parser("run", help="call one algorithm, without an environment around it")
    command.add_argument("algorithm")
    command.add_argument("payload", metavar="JSON", help="""e.g. '{"text": "abc"}'; - reads it from standard input""")
    command.add_argument("--path", type=Path, help="the adapter or its folder")
    _add_path(subparsers.add_parser("schemas", help="print every algorithm with its schemas as JSON"))
    _add_path(subparsers.add_parser("shell", help="a Python prompt with the functions, provided names filled in"))
    return parser


def _version() -> str:
    try:
        return version("plugplay-runnerlib")
    except PackageNotFoundError:
        return "unknown: it was not installed as a package"


def _add_path(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "path", nargs="?", type=Path, help="the adapter or its folder; default: RUNNER_ADAPTER, or here"
    )


def _serve() -> int:
    # Not at the top: importing the web server takes half a second and 30 MB, which check and run do not need.
    from runnerlib.serving import serve

    return serve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
