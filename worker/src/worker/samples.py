"""What the demo sends: each algorithm's own example, ``samples.json``, and pictures that runners make.

``PYTHON demo_pictures.py FOLDER``, run with the runner's own Python, fills ``FOLDER/pictures`` and writes
``FOLDER/samples.json``: ``[{"algorithm": "ocr", "payload": {"image_url": "snail.png"}}, …]``. Where a payload names one
of the pictures, its URL on a small server is sent. ``"fails": true`` marks what is wrong on purpose. The folder stays.
"""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from runnerlib.contract import AlgorithmDescription
from worker.child import ProcessPlan, start_child
from worker.output import Output
from worker.processes import ManagedProcess
from worker.runners import RunnerFolder

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
        async with (
            asyncio.timeout(_SCRIPT_SECONDS),
            start_child(command, folder=runner, environment=variables) as child,
        ):
            async for line in child.lines():
                output.line(runner.name, line)
            return await child.wait() == 0
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
