"""Commands in a runner's own virtual environment, which is made if it isn't there."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from worker.environments import EnvironmentBuilder, find_runnerlib
from worker.errors import EnvironmentBroken, NotRunning
from worker.output import InstallProgress, Output
from worker.processes import run_to_end
from worker.runners import ADAPTER_FILE, RunnerFolder, find_runners, select
from worker.settings import WorkerSettings, inherited_environment, without_secrets
from worker.state_file import RunnerState, data_folder_owned, read_state

_POLL_SECONDS = 0.5
#: A pytest configuration or conftest.py further up is not the author's.
#: Needs the runner's own Python before, and its folder as the current one.
PYTEST = ("-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "--confcutdir", ".", "-p", "no:cacheprovider")


async def own_python(settings: WorkerSettings, name: str, output: Output) -> tuple[RunnerFolder, Path]:
    """The runner and its Python: that of the running environment, else one that is made if it isn't there.

    Raises NoRunners, EnvironmentBroken, AlreadyRunning.
    """
    data = settings.data_folder.resolve()
    (runner,) = find_runners(settings.runners_folder.resolve(), [name])
    while (found := _running(data, runner)) is not None:
        if found.python is not None and found.coming != "installing":
            return runner, found.python
        if not found.coming:
            raise EnvironmentBroken(found.problem or f"{name} is not among the runners of the environment that runs")
        await asyncio.sleep(_POLL_SECONDS)
    builder = EnvironmentBuilder(data / "venvs", find_runnerlib())
    if builder.is_complete(runner):
        return runner, builder.path(runner) / "bin" / "python"
    with data_folder_owned(data), InstallProgress(output).installing(name, runner.notice) as report:
        # Installing may change what another look would take for other requirements.
        return runner, await builder.ensure(runner, report)


def _running(data: Path, runner: RunnerFolder) -> RunnerState | None:
    """What the running environment knows of this runner; None if its runners are others."""
    try:
        state = read_state(data)
    except NotRunning:
        return None
    return state.runners.get(runner.name) if state.folder == runner.path.parent else None


def replace_process(
    runner: RunnerFolder, python: Path, variables: Mapping[str, str], arguments: Sequence[str]
) -> NoReturn:
    """Becomes that Python, in the runner's folder and with its variables."""
    own = {"RUNNER_NAME": runner.name, "RUNNER_ADAPTER": str(runner.path / ADAPTER_FILE)}
    os.chdir(runner.path)
    os.execve(python, [str(python), *arguments], {**without_secrets(inherited_environment()), **variables, **own})  # noqa: S606


async def test_runners(settings: WorkerSettings, only: Sequence[str], output: Output) -> bool:
    """Runs the tests in runners' folders. Returns True if all pass.

    Leaves out runners without ``test_*.py``, and those scaled to 0.
    """
    data = settings.data_folder.resolve() / "tests"
    selection = select(settings.runners_folder, settings.scale, only)
    runners = [runner for runner in selection.runners() if any(runner.path.glob("test_*.py"))]
    builder = EnvironmentBuilder(data / "venvs", find_runnerlib(), extra=("pytest",))
    progress = InstallProgress(output)

    async def python_of(runner: RunnerFolder) -> Path:
        with progress.installing(runner.name, runner.notice) as report:
            return await builder.ensure(runner, report)

    with data_folder_owned(data):
        pythons = await asyncio.gather(*map(python_of, runners))
        for runner, python in zip(runners, pythons, strict=True):
            builder.remove_older(runner.name, [python])
        passed = [await _test(runner, python, output) for runner, python in zip(runners, pythons, strict=True)]
    return all(passed)


async def _test(runner: RunnerFolder, python: Path, output: Output) -> bool:
    command, on_line = [str(python), *PYTEST], partial(output.line, runner.name)
    return not await run_to_end(
        command, on_line, folder=runner.path, environment=without_secrets(inherited_environment())
    )
