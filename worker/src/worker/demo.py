"""``worker demo``: sends sample tasks for every algorithm through the queue and shows what became of them.

They are each algorithm's own example, ``samples.json``, and pictures that runners make: ``PYTHON demo_pictures.py
FOLDER``, run with the runner's own Python, fills ``FOLDER/pictures`` and writes ``FOLDER/samples.json``:
``[{"algorithm": "ocr", "payload": {"image_url": "snail.png"}}, …]``. Where a payload names one of the pictures, its
URL on a small server is sent. ``"fails": true`` marks what is wrong on purpose. The folder stays.
"""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.table import Table
from rich.text import Text

from producer.printable import one_line
from runnerlib.contract import AlgorithmDescription, Catalogue, TaskState, TaskView
from worker.environment_client import EnvironmentClient
from worker.errors import StartFailed
from worker.output import Output
from worker.plan import Layout, ProcessPlan
from worker.processes import ManagedProcess, explained, run_to_end
from worker.runners import RunnerFolder
from worker.supervisor import RunnerSet

#: How often a start in progress is looked at.
_POLL_SECONDS = 0.1
#: What is ready is shown without the other runners after this time.
_PATIENCE_SECONDS = 15.0
#: Longest wait for one task.
_TASK_SECONDS = 60.0
#: Longer values are shortened in the table.
_PAYLOAD_CHARACTERS, _RESULT_CHARACTERS = 44, 67
#: A message of an error may be long.
_CELL_CHARACTERS = 2000
#: Of an object inside another one, so many entries are shown when not all can be; the fewer the less room there is.
_INNER_ENTRIES = (None, 2, 1)
_OMITTED = "…"
SCRIPT = "demo_pictures.py"
_PICTURES, _SAMPLES = "pictures", "samples.json"
#: For temporary files of the script and what it starts; removed after it, even if that was killed.
_TEMPORARY = "tmp"
#: Only this machine can ask for the pictures, and only the runners that show them may fetch from it.
_HOST, _LOOPBACK = "127.0.0.1", "127.0.0.0/8"
_ALLOWED = "FETCH_ALLOW_PRIVATE"
#: It may download a few dozen megabytes.
_SCRIPT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One task to send. `shown`: its payload as a person is to see it; `fails`: it is wrong on purpose."""

    algorithm: str
    payload: Any
    shown: Any
    fails: bool = False


def read_samples() -> dict[str, list[Any]]:
    """Algorithm → payloads, from ``samples.json``."""
    content: dict[str, list[Any]] = json.loads(files("worker").joinpath(_SAMPLES).read_text(encoding="utf-8"))
    return content


def payloads_for(description: AlgorithmDescription, samples: dict[str, list[Any]]) -> list[Any]:
    """The example first; each payload once. Empty if nothing is known that would fit."""
    payloads = [description.example.payload] if description.example is not None else []
    payloads += [payload for payload in samples.get(description.name, []) if payload not in payloads]
    return payloads


def has_pictures(runner: RunnerFolder) -> bool:
    return (runner.path / SCRIPT).is_file()


def allowing_loopback(names: Sequence[str], inherited: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Runner → the variable that lets it fetch from our server, besides what the operator allows."""
    networks = ",".join(filter(None, (inherited.get(_ALLOWED, ""), _LOOPBACK)))
    return {name: {_ALLOWED: networks} for name in names}


@contextlib.asynccontextmanager
async def pictures_served(
    processes: Sequence[ManagedProcess], data: Path, output: Output
) -> AsyncIterator[list[Sample]]:
    """What to send to these runners; their pictures are served until the context ends."""
    plans = {one.plan.folder: one.plan for one in processes if one.plan.folder and (one.plan.folder / SCRIPT).is_file()}
    if not plans:
        output.say(f"no runner that was started brings pictures, by a {SCRIPT} in its folder")
    made = {}
    for runner, plan in plans.items():
        folder = data / "demo" / runner.name
        if await _make_pictures(plan, runner, folder, output):
            made[runner.name] = folder
        else:
            output.say(f"{runner.name}: its pictures could not be made; its lines above say why")
    async with _serving({name: folder / _PICTURES for name, folder in made.items()}) as url:
        for name in made:
            output.say(
                f"{name} may fetch from this machine ({_ALLOWED}={_LOOPBACK}) so that it gets the pictures of "
                f"{url}/{name}/; that is for this demonstration, worker up does not allow it"
            )
        yield [sample for name, folder in made.items() for sample in _read(name, folder, f"{url}/{name}", output)]


async def _make_pictures(plan: ProcessPlan, runner: Path, folder: Path, output: Output) -> bool:
    temporary = folder / _TEMPORARY
    for needed in (folder / _PICTURES, temporary):
        await asyncio.to_thread(needed.mkdir, parents=True, exist_ok=True)
    variables = plan.environment | {"TMPDIR": str(temporary)}
    # -B: nothing of ours is left in the author's folder
    command = (plan.command[0], "-B", "-u", str(runner / SCRIPT), str(folder))
    try:
        async with asyncio.timeout(_SCRIPT_SECONDS):
            on_line = partial(output.line, runner.name)
            return not await run_to_end(command, on_line, folder=runner, environment=variables)
    except TimeoutError:
        output.say(f"{runner.name}: {SCRIPT} takes longer than {_SCRIPT_SECONDS:g} s and is ended")
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.asynccontextmanager
async def _serving(folders: Mapping[str, Path]) -> AsyncIterator[str]:
    """The URL of a server that shows these folders and nothing else."""
    app = web.Application()
    for name, folder in folders.items():
        app.router.add_static(f"/{name}", folder)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    try:
        await web.TCPSite(server, _HOST, 0).start()
        host, port = server.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await server.cleanup()


class _Entry(BaseModel):
    algorithm: str
    payload: dict[str, Any]
    fails: bool = False


_ENTRIES = TypeAdapter(list[_Entry])


def _read(name: str, folder: Path, url: str, output: Output) -> list[Sample]:
    try:
        entries = _ENTRIES.validate_json((folder / _SAMPLES).read_bytes())
    except (OSError, ValidationError) as error:
        output.say(f"{name}: the samples of its {SCRIPT} cannot be read: {error}")
        return []
    pictures = {path.name for path in (folder / _PICTURES).iterdir()}

    def with_url(value: Any) -> Any:
        return f"{url}/{quote(value)}" if isinstance(value, str) and value in pictures else value

    return [
        Sample(one.algorithm, {key: with_url(value) for key, value in one.payload.items()}, one.payload, one.fails)
        for one in entries
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One sample task at its end; `view` is None if it did not end in time."""

    sample: Sample
    view: TaskView | None
    milliseconds: float

    @property
    def state(self) -> TaskState | None:
        return None if self.view is None else self.view.state

    @property
    def failed_on_purpose(self) -> bool:
        return self.sample.fails and self.state is TaskState.FAILED

    @property
    def is_as_expected(self) -> bool:
        return self.failed_on_purpose if self.sample.fails else self.state is TaskState.SUCCEEDED

    @property
    def result(self) -> str:
        if self.view is None:
            return "not finished in time"
        if self.view.error is not None:
            return f"{self.view.state.value}: {self.view.error.code.value}: {self.view.error.message}"
        return shortened(self.view.result, _RESULT_CHARACTERS)


class Demo:
    """One demonstration in a running environment; `more` is sent besides what every algorithm has as an example."""

    def __init__(self, layout: Layout, runners: RunnerSet, output: Output, more: Sequence[Sample] = ()) -> None:
        self._layout = layout
        self._runners = runners
        self._output = output
        self._more = more

    async def run(self) -> bool:
        """Shows a table, and another one for runners that take longer.

        Returns True if every runner came up and every task ended as it should.
        """
        outcomes: list[Outcome] = []
        shown: set[str] = set()
        async with EnvironmentClient(self._layout.gateway_url, self._layout.discovery_url, self._layout.data) as client:
            while True:
                missing, late = await self._wait_for_runners(client, shown)
                catalogue = await client.catalogue()
                names = [name for name in self._algorithms(catalogue) if name not in shown]
                shown.update(names)
                new = await self._send_samples(client, [catalogue.algorithms[name].description for name in names])
                outcomes += new
                if new or not outcomes:
                    self._show(new)
                if not late:
                    break
                self._output.say(f"not ready yet, and shown when it is: {', '.join(late)}")
        self._explain(outcomes, missing)
        self._show_addresses()
        return bool(outcomes) and not missing and all(outcome.is_as_expected for outcome in outcomes)

    async def _wait_for_runners(self, client: EnvironmentClient, shown: Collection[str]) -> tuple[list[str], list[str]]:
        """Waits until each runner is registered and known to the gateway, or until there is something new to show
        while the others take long. Returns the runners that will not come up, and those that still may.

        A runner registers once everything of it has loaded or failed to: with what works.
        """
        load_seconds = self._layout.settings.load_seconds
        began_at = changed_at = time.monotonic()
        before: set[str] = set()
        while True:
            catalogue = await client.catalogue()
            here = {(runner.host, runner.boot) for runner in catalogue.runners.values()}
            ended = [r.plan.name for r in self._runners.processes if r.has_given_up]
            absent = [r.plan.name for r in self._runners.processes if (r.plan.url, r.boot) not in here]
            coming = self._runners.coming
            offered = set(self._algorithms(catalogue))
            # The gateway's view of the catalogue may be a moment behind.
            is_known = offered <= {one.name for one in (await client.status()).algorithms if one.runners}
            now = time.monotonic()
            if coming:
                began_at = now
            if offered != before:
                before, changed_at = offered, now
            late = [*coming, *(name for name in absent if name not in ended)]
            if is_known and not late:
                return [*self._runners.broken, *ended], []
            if is_known and offered - set(shown) and now - changed_at > _PATIENCE_SECONDS:
                return [], late
            if now - began_at > load_seconds:
                if not here:
                    raise StartFailed("no runner has registered; the lines above say why")
                return [*self._runners.broken, *absent], []
            await asyncio.sleep(_POLL_SECONDS)

    def _algorithms(self, catalogue: Catalogue) -> list[str]:
        """What the runners of this environment offer now."""
        ours = {runner.plan.url for runner in self._runners.processes}
        names = {name for runner in catalogue.runners.values() if runner.host in ours for name in runner.algorithms}
        return sorted(names)

    async def _send_samples(
        self, client: EnvironmentClient, descriptions: Iterable[AlgorithmDescription]
    ) -> list[Outcome]:
        known = read_samples()
        samples = []
        for description in descriptions:
            payloads = payloads_for(description, known)
            if not payloads:
                self._output.say(f"{description.name} has no example; give its docstring a doctest to see it here")
            samples += [Sample(description.name, payload, payload) for payload in payloads]
            samples += [sample for sample in self._more if sample.algorithm == description.name]
        if samples:
            self._output.say(f"sending {len(samples)} tasks through the queue")
        return list(await asyncio.gather(*(self._send(client, sample) for sample in samples)))

    async def _send(self, client: EnvironmentClient, sample: Sample) -> Outcome:
        sent_at = time.monotonic()
        id = await client.submit(sample.algorithm, sample.payload)
        told = -1.0
        while True:
            view = await client.task(id)
            spent = time.monotonic() - sent_at
            if view.state.is_terminal or spent > _TASK_SECONDS:
                return Outcome(sample, view if view.state.is_terminal else None, spent * 1000)
            if view.progress is not None and view.progress.fraction > told:
                told = view.progress.fraction
                self._output.say(f"{sample.algorithm}: {told:.0%} {view.progress.message}")

    def _show(self, outcomes: list[Outcome]) -> None:
        table = Table("algorithm", "payload", "result", "ms", "runner", title="Through the queue and back")
        # A long failure must not take the room of what is beside it.
        table.columns[1].max_width = _PAYLOAD_CHARACTERS
        table.columns[3].justify = "right"
        for outcome in outcomes:
            cells = (
                outcome.sample.algorithm,
                shortened(outcome.sample.shown, _PAYLOAD_CHARACTERS),
                outcome.result,
                f"{outcome.milliseconds:.0f}",
                (outcome.view.runner if outcome.view is not None else None) or "-",
            )
            style = None if outcome.state is TaskState.SUCCEEDED else "red"
            # What authors and runners wrote is no markup.
            table.add_row(*(Text(one_line(cell, _CELL_CHARACTERS)) for cell in cells), style=style)
        self._output.show(table)

    def _explain(self, outcomes: Sequence[Outcome], missing: Sequence[str]) -> None:
        for outcome in outcomes:
            if outcome.failed_on_purpose:
                shown = shortened(outcome.sample.shown, _PAYLOAD_CHARACTERS)
                self._output.say(f"{shown} is wrong on purpose; what is kept of such a task: producer dead list")
        for name in missing:
            self._output.say(f"{name} did not come up; its lines above say why")
        for runner in self._runners.processes:
            if not runner.is_ready and runner.plan.name not in missing:
                for sentence in explained(runner.reasons, runner.plan.name):
                    self._output.say(sentence)

    def _show_addresses(self) -> None:
        layout = self._layout
        addresses = {"gateway": layout.gateway_url, "discovery": layout.discovery_url}
        addresses |= {runner.plan.name: runner.plan.url for runner in self._runners.processes}
        table = Table.grid(padding=(0, 2))
        for name, url in addresses.items():
            table.add_row(name, f"{url}/docs")
        self._output.show(table)


def shortened(value: Any, most: int) -> str:
    """JSON of at most so many characters: without lists in objects, then with fewer inner entries, then cut."""
    text = json.dumps(value, ensure_ascii=False)
    for inner_entries in _INNER_ENTRIES:
        if len(text) > most:
            text = _abridged(value, 0, inner_entries)
    return text if len(text) <= most else text[: most - 1] + _OMITTED


def _abridged(value: Any, depth: int, inner_entries: int | None) -> str:
    if isinstance(value, list) and depth and value:
        return f"[{_OMITTED}]"
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    shown = list(value.items())[: inner_entries if depth else None]
    parts = [
        f"{json.dumps(name, ensure_ascii=False)}: {_abridged(one, depth + 1, inner_entries)}" for name, one in shown
    ]
    omitted = [_OMITTED] if len(shown) < len(value) else []
    return "{" + ", ".join(parts + omitted) + "}"
