"""A command in a runner's own virtual environment, which is made when it isn't there."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from worker.environments import EnvironmentBuilder
from worker.errors import EnvironmentBroken, NotRunning
from worker.install_progress import InstallProgress
from worker.output import Output
from worker.runnerlib_source import find_runnerlib
from worker.runners import ADAPTER_FILE, RunnerFolder, find_runners
from worker.settings import WorkerSettings, inherited_environment
from worker.state_file import RunnerState, data_folder_owned, read_state

_LOOK_SECONDS = 0.5


async def own_python(settings: WorkerSettings, name: str, output: Output) -> tuple[RunnerFolder, Path]:
    """The runner and its Python: that of the environment that runs, else one that is made when it isn't there.

    Raises NoRunners, EnvironmentBroken, AlreadyRunning.
    """
    data = settings.data_folder.resolve()
    (runner,) = find_runners(settings.runners_folder.resolve(), [name])
    while (found := _running(data, runner)) is not None:
        if found.python is not None and found.coming != "installing":
            return runner, found.python
        if not found.coming:
            raise EnvironmentBroken(found.problem or f"{name} is not among the runners of the environment that runs")
        await asyncio.sleep(_LOOK_SECONDS)
    builder = EnvironmentBuilder(data / "venvs", find_runnerlib())
    if builder.is_complete(runner):
        return runner, builder.path(runner) / "bin" / "python"
    with data_folder_owned(data), InstallProgress(output) as progress:
        # Installing may change what another look would take for other requirements.
        python = await builder.ensure(runner, partial(progress.step, notice=runner.notice))
        progress.done(name)
    return runner, python


def _running(data: Path, runner: RunnerFolder) -> RunnerState | None:
    """What the environment that runs knows of this runner; None when its runners are others."""
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
    os.execve(python, [str(python), *arguments], {**inherited_environment(), **variables, **own})  # noqa: S606
