"""Which Python a command takes for a runner."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from worker import runner_commands
from worker.environments import COMPLETE, EnvironmentBuilder, RunnerlibSource
from worker.output import Output
from worker.runner_commands import own_python
from worker.runners import RunnerFolder
from worker.settings import read_settings
from worker.state_file import EnvironmentState, RunnerState, StateFile

NOTHING = RunnerlibSource(arguments=("pip",), fingerprint="nothing")


def test_environment_that_runs_lends_its_python_to_its_own_folder_of_runners_alone(
    tmp_path: Path, make_runner: Callable[..., RunnerFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_commands, "find_runnerlib", lambda: NOTHING)
    runner = make_runner("tiny")
    data = tmp_path / "data"
    made = EnvironmentBuilder(data / "venvs", NOTHING).path(runner)
    made.mkdir(parents=True)
    (made / COMPLETE).touch()
    settings = read_settings(runners_folder=runner.path.parent, data_folder=data)
    running = Path("/running/bin/python")

    def python(folder: Path) -> Path:
        runners = {"tiny": RunnerState(python=running)}
        state = EnvironmentState(gateway="http://127.0.0.1:1", discovery="http://127.0.0.1:2", runners=runners)
        StateFile(data).write(state.model_copy(update={"folder": folder}))
        return asyncio.run(own_python(settings, "tiny", Output(io.StringIO())))[1]

    assert python(runner.path.parent) == running
    assert python(tmp_path / "others") == made / "bin" / "python"
