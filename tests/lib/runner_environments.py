"""Virtual environments of the real runners, made once and kept: those that ``worker test-runners`` uses, too."""

import asyncio
import contextlib
import hashlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from environments import Service

from worker.environments import EnvironmentBuilder, find_runnerlib
from worker.errors import AlreadyRunning
from worker.runners import find_runners
from worker.state_file import data_folder_owned

REPOSITORY = Path(__file__).resolve().parents[2]
RUNNERS = REPOSITORY / "runners"
MEMES = RUNNERS / "meme-classifier"
_DATA = REPOSITORY / ".plugplay" / "tests"
#: Somebody else may be installing torch there.
_PATIENCE_SECONDS = 600.0


def pythons(*names: str) -> dict[str, Path]:
    """The Python of each of these runners."""
    with _turn():
        builder = EnvironmentBuilder(_DATA / "venvs", find_runnerlib(), extra=("pytest",))

        async def made() -> list[Path]:
            return await asyncio.gather(*(builder.ensure(runner, _say_nothing) for runner in found))

        found = find_runners(RUNNERS, names)
        return dict(zip([runner.name for runner in found], asyncio.run(made()), strict=True))


def training_sources(python: Path) -> Path:
    """A folder with the packages that bring pictures of memes, photos and fonts; nothing of them is imported."""
    requirements = MEMES / "requirements-training.txt"
    folder = _DATA / f"pictures-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    with _turn():
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            command = [str(python), "-I", "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
            command += ["--no-deps", "--ignore-requires-python", "--no-compile", "--target", str(unfinished)]
            subprocess.run([*command, "--requirement", str(requirements)], check=True)
            unfinished.rename(folder)
    return folder


def with_python(service: Service, python: Path) -> Service:
    """The service as a process of this Python."""
    service.command[0] = str(python)
    return service


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """One process at a time may make environments."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    pause = threading.Event()
    with contextlib.ExitStack() as owned:
        while True:
            try:
                owned.enter_context(data_folder_owned(_DATA))
            except AlreadyRunning:
                if time.monotonic() > deadline:
                    raise
                pause.wait(0.5)
            else:
                break
        yield


def _say_nothing(what: str) -> None:
    """Nobody watches."""
