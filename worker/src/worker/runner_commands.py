"""A command in a runner's own virtual environment, which is made when it isn't there."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from worker.build_progress import BuildProgress
from worker.environments import EnvironmentBuilder
from worker.errors import AlreadyRunning, EnvironmentBroken, NotRunning
from worker.output import Output
from worker.runnerlib_source import find_runnerlib
from worker.runners import ADAPTER_FILE, RunnerFolder, find_runners
from worker.settings import WorkerSettings, inherited_environment
from worker.state_file import data_folder_owned, read_state

_LOOK_SECONDS = 0.5


async def own_python(settings: WorkerSettings, name: str, output: Output) -> tuple[RunnerFolder, Path]:
    """The runner and its Python. Raises NoRunners, EnvironmentBroken, AlreadyRunning."""
    data = settings.data_folder.resolve()
    (runner,) = find_runners(settings.runners_folder.resolve(), [name])
    builder = EnvironmentBuilder(data / "venvs", find_runnerlib())
    while not builder.is_complete(runner):
        try:
            with data_folder_owned(data), BuildProgress(output) as progress:
                await builder.ensure(runner, partial(progress.step, notice=runner.notice))
                progress.done(name)
        except AlreadyRunning as error:
            _check_that_it_is_made(data, runner, error)
            await asyncio.sleep(_LOOK_SECONDS)
    return runner, builder.path(runner) / "bin" / "python"


def _check_that_it_is_made(data: Path, runner: RunnerFolder, error: AlreadyRunning) -> None:
    """Raises when the worker that owns the data folder is not about to make this runner's environment."""
    try:
        state = read_state(data)
    except NotRunning:
        raise error from None
    if state.follows != runner.path.parent:
        raise error
    found = state.runners.get(runner.name)
    if found is not None and found.problem and not found.coming:
        raise EnvironmentBroken(found.problem)


def replace_process(
    runner: RunnerFolder, python: Path, variables: Mapping[str, str], arguments: Sequence[str]
) -> NoReturn:
    """Becomes that Python, in the runner's folder and with its variables."""
    own = {"RUNNER_NAME": runner.name, "RUNNER_ADAPTER": str(runner.path / ADAPTER_FILE)}
    os.chdir(runner.path)
    os.execve(python, [str(python), *arguments], {**inherited_environment(), **variables, **own})  # noqa: S606
