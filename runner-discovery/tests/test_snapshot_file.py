import os
from pathlib import Path

import pytest

from runner_discovery.records import Snapshot
from runner_discovery.snapshot_file import SnapshotFile
from runnerlib.contract import AlgorithmDescription

SNAPSHOT = Snapshot(sequence=7, algorithms=[AlgorithmDescription(name="upper", input_schema={"type": "object"})])


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "new folder" / "discovery.json")
    assert file.read() == Snapshot()
    file.write(SNAPSHOT)
    assert file.read() == SNAPSHOT
    assert os.listdir(file.path.parent) == ["discovery.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\x00\xff", b"[]", b'{"runners": 5}', b'{"version": 99}', SNAPSHOT.model_dump_json().encode()[:-9]],
)
def test_an_unreadable_snapshot_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    file = SnapshotFile(tmp_path / "discovery.json")
    file.path.write_bytes(content)
    assert file.read() == Snapshot()
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("discovery.json.unreadable-")
    assert aside.read_bytes() == content
    file.write(SNAPSHOT)
    assert file.read() == SNAPSHOT


def test_a_failed_write_leaves_the_old_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SnapshotFile(tmp_path / "discovery.json")
    file.write(SNAPSHOT)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.write(Snapshot())
    assert file.read() == SNAPSHOT
    assert os.listdir(tmp_path) == ["discovery.json"]
