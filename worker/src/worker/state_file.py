"""``environment.json``: how other commands find the running environment. And the lock that makes it one at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from worker.errors import AlreadyRunning, NotRunning

_STATE = "environment.json"
_LOCK = "worker.lock"


class EnvironmentState(BaseModel):
    """A running environment."""

    pid: int = Field(default_factory=os.getpid)
    gateway: str
    discovery: str
    #: runner's name → its address
    runners: dict[str, str]


@contextlib.contextmanager
def data_folder_owned(data: Path) -> Iterator[None]:
    """Keeps other workers out of the data folder. The lock ends with this process, however it ends."""
    data.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode() or "unknown"
            raise AlreadyRunning(
                f"a worker (process {holder}) already uses {data}; stop it or choose another folder with --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def state_written(data: Path, state: EnvironmentState) -> Iterator[None]:
    """The file is there while the environment runs."""
    file = data / _STATE
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
    fresh.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def read_state(data: Path) -> EnvironmentState:
    """Raises NotRunning with a sentence when there is no file, or one that a killed worker left."""
    try:
        state = EnvironmentState.model_validate_json((data / _STATE).read_bytes())
    except (OSError, ValidationError):
        state = None
    if state is None or not _lives(state.pid):
        raise NotRunning(f"no environment runs in {data}; start one with: worker up")
    return state


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
