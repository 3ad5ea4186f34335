"""How commands find the environment, and how it stays one at a time."""

from pathlib import Path

import pytest

from worker.errors import AlreadyRunning, NotRunning
from worker.state_file import EnvironmentState, StateFile, data_folder_owned, read_state

STATE = EnvironmentState(gateway="http://127.0.0.1:1", discovery="http://127.0.0.1:2", runners={})


def test_state_is_there_while_the_environment_runs(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.write(STATE)
    assert read_state(tmp_path) == STATE
    file.remove()
    with pytest.raises(NotRunning, match="worker up"):
        read_state(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_state_of_a_killed_worker_does_not_count(tmp_path: Path) -> None:
    StateFile(tmp_path).write(STATE.model_copy(update={"pid": 2**22 + 1}))
    with pytest.raises(NotRunning):
        read_state(tmp_path)


def test_data_folder_has_one_owner(tmp_path: Path) -> None:
    with (
        data_folder_owned(tmp_path),
        pytest.raises(AlreadyRunning, match="already uses"),
        data_folder_owned(tmp_path),
    ):
        pass
    with data_folder_owned(tmp_path):
        pass
