"""The registry's memory on disk: one JSON file, replaced as a whole."""

import contextlib
import os
import time
from pathlib import Path

from pydantic import ValidationError

from runner_discovery.records import SNAPSHOT_VERSION, Snapshot
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Several times what a registry writes: reading more could take all memory, at each start again.
MAX_SNAPSHOT_BYTES = 128 * 1024 * 1024


class SnapshotFile:
    """Reads and writes snapshots; a crash while writing leaves the file as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Snapshot:
        """The last snapshot. One that cannot be read is moved aside, and an empty one returned."""
        try:
            if (size := self.path.stat().st_size) > MAX_SNAPSHOT_BYTES:
                return self._set_aside(f"{size} bytes, at most {MAX_SNAPSHOT_BYTES} are read")
            snapshot = Snapshot.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return Snapshot()
        except ValidationError as error:
            return self._set_aside(f"{error.error_count()} mistakes")
        if snapshot.version != SNAPSHOT_VERSION:
            return self._set_aside(f"version {snapshot.version}, this program reads {SNAPSHOT_VERSION}")
        return snapshot

    def write(self, snapshot: Snapshot) -> None:
        """Replaces the file and waits until it is on disk. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(snapshot.model_dump_json().encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
        # The rename itself is only on disk once the folder is.
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _set_aside(self, reason: str) -> Snapshot:
        aside = self.path.with_name(f"{self.path.name}.unreadable-{time.time_ns()}")
        self.path.replace(aside)
        log.warning(
            "the snapshot cannot be read; starting without memory, runners will register again",
            reason=reason,
            moved_to=str(aside),
        )
        return Snapshot()
