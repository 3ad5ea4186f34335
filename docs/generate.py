"""Writes what the pages repeat from the code: settings.md, and tables in other pages.

python docs/generate.py            writes them
python docs/generate.py --check    ends with 1 when a page is not what would be written
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic_settings import BaseSettings
from typer.main import get_command

from controller.settings import ControllerSettings
from producer import cli
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.settings import GatewaySettings
from runner_discovery.settings import Settings as DiscoverySettings
from runnerlib.adapter.model import Options
from runnerlib.service.settings import ServiceSettings, has_file, variables_of
from runnerlib.settings import RunnerSettings
from worker.conformance.command import CHECKS
from worker.settings import WorkerSettings

_HERE = Path(__file__).parent
SETTINGS = _HERE / "settings.md"
HTTP_INTERFACE = _HERE / "http-interface.md"
OTHER_LANGUAGES = _HERE / "other-languages.md"
WRITING_A_RUNNER = _HERE / "writing-a-runner.md"
CONFORMANCE = _HERE / "conformance.md"
_BEGIN, _END = "<!-- made by docs/generate.py -->\n", "<!-- until here -->\n"

_INTRODUCTION = """\
<!-- Made by docs/generate.py from the settings classes: change those, then run it again. -->
# Settings

Every setting is an environment variable; without any of them everything works on one machine. A value that cannot be
used ends the process at its start with a sentence that names the variable. An empty variable counts as unset.

What is secret can also be in a file: `RUNNER_KEYS_FILE` names the one that holds the value of `RUNNER_KEYS`, and so on
for each of {secrets}. Only one of the two may be set.

`worker up` passes its own environment on to the services and runners that it starts, but for `HOST`, `PORT`, addresses
and names, which it sets itself. So `RETENTION_DAYS=30 worker up` reaches the controller, and
`OPTION_UPPER_TIMEOUT_SECONDS=5 ./run.sh` the runner of `upper`. `QUEUE_URL` and `DATABASE_URL` reach controller and
gateway alone, and runners [no secrets of others](security.md#secrets-that-runners-do-not-get).
"""

#: Everybody knows what ports there are.
_LAST_PORT = "65535"
#: Title, what starts it, class. What a class shares with every service is told once.
_SERVICES: tuple[tuple[str, str, type[BaseSettings]], ...] = (
    ("Worker", "`worker up`, `worker demo` and `./run.sh`. Its options on the command line win.", WorkerSettings),
    ("Gateway", "`python -m producer.gateway`; with the SQLite file a part of `worker up`.", GatewaySettings),
    ("Controller", "`python -m controller`; with the SQLite file a part of `worker up`.", ControllerSettings),
    ("Discovery", "`python -m runner_discovery`.", DiscoverySettings),
    ("Runner", "`python -m runnerlib`.", RunnerSettings),
)

_OPTIONS = {
    "timeout_seconds": "Bounds one call; its process is killed, and the attempt fails as `timeout`. "
    "At most 604800 (7 days).",
    "retries": "How often a task is tried again after transient failures. At most 100.",
    "retry_on": "Exception classes, or their names, that are transient, too.",
    "invalid_payload_on": "Exception classes, or their names, that say the payload is at fault: the task fails as "
    "`invalid_payload`, and the sender reads the exception's text.",
    "batch": "Most tasks in one call. Without it 64 with a batched function, else 512. At most 4096.",
    "slots": "Calls at the same time: processes, or for `async def` coroutines in one process. "
    "Without it 1, for `async def` 32. At most 1024.",
    "process": "Algorithms with the same name here share their processes, and so what those have loaded.",
    "max_tasks_per_process": "A fresh process after so many tasks; 1: for each task.",
    "max_rss_mb": "A fresh process once it has grown to so many MiB.",
    "result_bytes": "A larger result fails as `bad_result`. At most 16 MiB.",
    "most_waiting": "Tasks that may [wait](limits.md#of-an-algorithm); the gateway refuses more.",
    "most_running": "Tasks that may run at the same time, over [all its runners](limits.md#of-an-algorithm).",
    "group_slots": "Tasks of one [group](limits.md#groups-take-turns) that may run at the same time.",
    "rate_per_second": "Tasks that may start in a second, over [all its runners](limits.md#of-an-algorithm).",
}


def settings_page() -> str:
    """The whole of settings.md."""
    return "\n".join(_lines())


def with_table(page: Path, rows: Iterable[str]) -> str:
    """The page with a fresh table in its marked place."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin and end, f"{page.name} has no place for the table"
    return "".join([before, begin, *(f"{row}\n" for row in rows), end, after])


class _Row(NamedTuple):
    """One setting as the page shows it."""

    name: str
    aliases: list[str]
    default: str
    description: str | None


def _rows(settings: type[BaseSettings]) -> Iterator[_Row]:
    for field, info in settings.model_fields.items():
        name, *aliases = variables_of(field, info)
        yield _Row(name, aliases, str(info.get_default(call_default_factory=True)), info.description)


def _lines() -> Iterator[str]:
    yield _INTRODUCTION.format(secrets=", ".join(_secrets()))
    shared = list(_rows(ServiceSettings))
    yield "## Every service\n"
    yield "Gateway, controller, discovery and runners.\n"
    yield from _table(ServiceSettings, [row for row in shared if row.name != "PORT"])
    for title, start, settings in _SERVICES:
        yield f"\n## {title}\n\n{start}\n"
        yield from _table(settings, [row for row in _rows(settings) if row not in shared])
    yield "\n## Commands\n\n`producer …`\n"
    yield from _command_table()
    yield "\n## Options of an adapter\n"
    yield "`OPTIONS` and `OPTION_<ALGORITHM>_<KEY>`: [writing-a-runner.md](writing-a-runner.md#options)."
    yield ""


def _secrets() -> list[str]:
    """The variables that can also be in files."""
    marked = (
        variables_of(field, info)[0]
        for _, _, settings in _SERVICES
        for field, info in settings.model_fields.items()
        if has_file(info)
    )
    return [f"`{name}`" for name in sorted(set(marked))]


def _table(settings: type[BaseSettings], rows: Iterable[_Row]) -> Iterator[str]:
    names = [row.name for row in _rows(settings)]
    fields_by_variable = dict(zip(names, settings.model_fields.values(), strict=True))
    yield "| variable | default | |"
    yield "|---|---|---|"
    for row in rows:
        bounds = _bounds(fields_by_variable[row.name].metadata)
        aliases = f" Also `{'`, `'.join(row.aliases)}`." if row.aliases else ""
        yield f"| `{row.name}` | {_value(row.default)} | {row.description}{bounds}{aliases} |"


def _command_table() -> Iterator[str]:
    yield "| variable | default | |"
    yield "|---|---|---|"
    told = set()
    for command in get_command(cli.app).commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.envvar and parameter.envvar not in told:
                told.add(parameter.envvar)
                yield f"| `{parameter.envvar}` | {_value(parameter.default)} | {parameter.help} |"


def _problem_table() -> Iterator[str]:
    yield "| status | code | |"
    yield "|---|---|---|"
    for code in sorted(ProblemCode, key=lambda code: code.status):
        yield f"| {code.status} | `{code.value}` | {code.meaning} |"


def _exit_code_table() -> Iterator[str]:
    """As the commands' own documentation has it."""
    yield from (line for line in (cli.__doc__ or "").splitlines() if line.startswith("|"))


def _option_table() -> Iterator[str]:
    defaults = {field.name: field.default for field in fields(Options)}
    assert defaults.keys() == _OPTIONS.keys(), "tell in this file what the new option does"
    yield "| key | default | |"
    yield "|---|---|---|"
    for key, text in _OPTIONS.items():
        yield f"| `{key}` | {_value(defaults[key])} | {text} |"


def _check_table() -> Iterator[str]:
    yield "| level | check | what the contract wants | |"
    yield "|---|---|---|---|"
    for check in CHECKS:
        needs = "needs `--slow`" if check.needs_slow else "of a runner with a token" if check.needs_token else ""
        yield f"| {check.level.word} | `{check.name}` | {check.wants} | {needs} |"


def _value(default: object) -> str:
    if default in (None, "", (), "()", "None"):
        return "—"
    text = str(default).lower() if isinstance(default, bool) or default in ("True", "False") else str(default)
    if text.startswith("("):
        text = text.strip("()").replace(".0", "").replace(", ", ",")
    number = int(text) if text.isdigit() else 0
    size = f" ({number // 1024**2} MiB)" if number >= 1024**2 and number % 1024**2 == 0 else ""
    return f"`{text.removesuffix('.0')}`{size}"


def _bounds(metadata: Iterable[object]) -> str:
    """From the constraints of a field: " From 1 to 3600."."""
    least = most = ""
    for one in metadata:
        match one:
            case Ge(ge=value):
                least = f"{value}"
            case Gt(gt=value):
                least = f"more than {value}"
            case Le(le=value) | Lt(lt=value):
                most = f"{value}"
            case MaxLen() | MinLen():
                continue
    if most == _LAST_PORT:
        return ""
    if least and most:
        return f" {least.capitalize()}, at most {most}." if "more" in least else f" From {least} to {most}."
    if least and least != "0":
        return f" At least {least}." if least.isdigit() else f" {least.capitalize()}."
    return f" At most {most}." if most else ""


def main(arguments: list[str]) -> int:
    fresh = {
        SETTINGS: settings_page(),
        HTTP_INTERFACE: with_table(HTTP_INTERFACE, _problem_table()),
        OTHER_LANGUAGES: with_table(OTHER_LANGUAGES, _exit_code_table()),
        WRITING_A_RUNNER: with_table(WRITING_A_RUNNER, _option_table()),
        CONFORMANCE: with_table(CONFORMANCE, _check_table()),
    }
    stale = [page for page, text in fresh.items() if not page.is_file() or page.read_text(encoding="utf-8") != text]
    if arguments == ["--check"]:
        for page in stale:
            print(f"{page.name} is stale; run: python docs/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for page in stale:
        page.write_text(fresh[page], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
