"""The commands of the pages do what the pages say, in one environment, top to bottom."""

import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from documents import ROOT, Block, Command, blocks, commands, keeps_promise
from environments import until
from servers.fixtures import missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DOCS = ROOT / "docs"
#: What one page has made may be there in the next. Nothing may fail before errors-and-retries, which counts.
PAGES = [
    ROOT / "README.md",
    *(
        DOCS / f"{name}.md"
        for name in (
            "first-algorithm",
            "a-runner-with-a-model",
            "errors-and-retries",
            "batching",
            "other-languages",
            "conformance",
            "writing-a-runner",
            "rabbitmq-and-postgresql",
            "limits",
            "operating",
        )
    ),
]
#: A saved file takes over within that; a runner with requirements of its own gets a virtual environment first.
_TAKES_OVER_SECONDS = 150.0
#: The shell that they would change is a new one for each command, and is set up already.
_SET_UP = re.compile(r"^(export |\. \.venv/bin/activate$)")


def test_every_page_with_commands_is_in_the_list() -> None:
    with_commands = {page for page in (*DOCS.glob("*.md"), ROOT / "README.md") if any(map(_is_run, blocks(page)))}
    assert with_commands <= set(PAGES)


def test_commands_print_what_the_pages_promise(clone: Any, subtests: Any) -> None:
    """One environment serves all pages, so this is one test; each page is reported by itself."""
    for page in PAGES:
        with subtests.test(page.name):
            _follow(page, clone)
    with subtests.test("routes"):
        _check_routes(clone)
    with subtests.test("metrics"):
        _check_metrics(clone)


def _is_run(block: Block) -> bool:
    return block.language in ("sh", "console") and not block.not_run


def _follow(page: Path, clone: Any) -> None:
    clone.where = clone.folder
    patience = 0.0
    for block in blocks(page):
        if block.not_run:
            continue
        if block.shown_by:
            until(lambda text=block.text: keeps_promise(text, clone.log(), whole=False), _why(block, clone.log()), 60)
        elif block.file:
            clone.write(block)
            patience = _TAKES_OVER_SECONDS
        elif _is_run(block):
            for command in commands(block):
                _do(command, block, clone, patience)
                patience = 0.0


def _do(command: Command, block: Block, clone: Any, patience_seconds: float) -> None:
    """Runs one command; again and again for so long, when a file has just been saved that must take over first."""
    if _SET_UP.match(command.text):
        return
    if command.text.startswith("cd "):
        clone.where = (clone.where / command.text.removeprefix("cd ")).resolve()
        return
    if command.text == "./run.sh":
        assert keeps_promise(command.output or "", clone.log(), whole=False), _why(block, clone.log())
        return
    if command.text.startswith("node ") and shutil.which("node") is None:
        missing("Node is not installed (apt-get install nodejs)")
    deadline = time.monotonic() + patience_seconds
    while True:
        code, printed = clone.run(command.text)
        fits = code == 0 if command.output is None else keeps_promise(command.output, printed)
        if fits:
            return
        assert time.monotonic() < deadline, (
            f"{block.place}: $ {command.text}\nended with {code} and printed:\n{printed}\n"
            f"promised:\n{command.output or 'success'}\nthe environment:\n{clone.log()[-3000:]}"
        )


def _why(block: Block, log: str) -> str:
    return f"{block.place}: promised\n{block.text}\nthe environment:\n{log[-3000:]}"


def _check_routes(clone: Any) -> None:
    """docs/http-interface.md names every route of the gateway, and no other."""
    document = requests.get(f"{clone.gateway}/openapi.json", timeout=20).json()
    there = set()
    for path, operations in document["paths"].items():
        general = re.sub(r"^/algorithms/\w+/(run|tasks)$", r"/algorithms/{algorithm}/\1", path)
        there |= {f"{method.upper()} {general}" for method in operations}
    page = (DOCS / "http-interface.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`((?:GET|POST|DELETE|PUT) /[^`?]*)`", page)) - {"GET /openapi.json"} == there


def _check_metrics(clone: Any) -> None:
    """docs/operating.md names every metric of ours that this environment shows, and none that nobody has."""
    told = set(
        re.findall(r"`((?:gateway|controller|runner)_\w+)`", (DOCS / "operating.md").read_text(encoding="utf-8"))
    )
    catalogue = requests.get(f"http://127.0.0.1:{clone.ports['DISCOVERY_PORT']}/catalogue", timeout=20).json()
    addresses = [clone.gateway, f"http://127.0.0.1:{clone.ports['DISCOVERY_PORT']}"]
    addresses += [view["host"] for view in catalogue["runners"].values()]
    shown = set()
    for address in addresses:
        text = requests.get(f"{address}/metrics", timeout=20).text
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
            family = name if kind != "counter" else name.removesuffix("_total") + "_total"
            shown |= {family} if re.match("gateway_|controller_|runner_", name) else set()
    shown = {name for name in shown if not name.endswith("_created")}
    assert shown - told == {"runner_discovery_index"}
    assert told <= shown
