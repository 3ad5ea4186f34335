"""Runs the tests that lie in runners' folders, each where its runner's requirements are."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from worker.child import start_child
from worker.environments import EnvironmentBuilder
from worker.install_progress import InstallProgress
from worker.output import Output
from worker.runnerlib_source import find_runnerlib
from worker.runners import RunnerFolder
from worker.selection import select
from worker.settings import WorkerSettings, inherited_environment
from worker.state_file import data_folder_owned

_TOOLS = ("pytest",)
#: A pytest configuration or conftest.py further up is not the author's.
#: Needs the runner's own Python before, and its folder as the current one.
PYTEST = ("-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "--confcutdir", ".", "-p", "no:cacheprovider")


async def test_runners(settings: WorkerSettings, only: Sequence[str], output: Output) -> bool:
    """True when all tests of all runners pass. Runners without ``test_*.py``, or scaled to 0, are left out."""
    data = settings.data_folder.resolve() / "tests"
    runners = [r for r in select(settings, only).runners() if any(r.path.glob("test_*.py"))]
    builder = EnvironmentBuilder(data / "venvs", find_runnerlib(), extra=_TOOLS)
    with data_folder_owned(data):
        with InstallProgress(output) as progress:
            made = [builder.ensure(one, partial(progress.step, notice=one.notice)) for one in runners]
            pythons = await asyncio.gather(*made)
        for runner, python in zip(runners, pythons, strict=True):
            builder.remove_older(runner.name, [python])
        passed = [await _test(runner, python, output) for runner, python in zip(runners, pythons, strict=True)]
    return all(passed)


async def _test(runner: RunnerFolder, python: Path, output: Output) -> bool:
    async with start_child([str(python), *PYTEST], folder=runner.path, environment=inherited_environment()) as child:
        async for line in child.lines():
            output.line(runner.name, line)
        return await child.wait() == 0
