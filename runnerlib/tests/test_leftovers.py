"""The folder for temporary files of a worker process."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from runnerlib import leftovers
from runnerlib.leftovers import OwnFolder, TemporaryFolders, end_processes, remove


def test_whatever_a_call_leaves_is_seen_however_short_the_calls_are(tmp_path: Path) -> None:
    (tmp_path / "loaded").mkdir()
    (tmp_path / "pymp-abc").mkdir()
    folder = OwnFolder(str(tmp_path))
    folder.keep_what_is_there()
    for number in range(500):
        assert folder.left() == []
        (tmp_path / f"file{number}").touch()
        assert folder.left() == [f"file{number}"]
        folder.empty()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["loaded", "pymp-abc"]


def test_what_is_left_in_a_folder_that_a_call_made_again_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "own"
    place.mkdir()
    folder = OwnFolder(str(place))
    folder.keep_what_is_there()
    place.rmdir()
    place.mkdir()
    (place / "file").touch()
    assert folder.left() == ["file"]


def test_no_folder_has_nothing_in_it(tmp_path: Path) -> None:
    for folder in (OwnFolder(None), OwnFolder(str(tmp_path / "gone"))):
        folder.keep_what_is_there()
        assert folder.left() == []
        folder.empty()


def _make_deep(top: Path, levels: int) -> None:
    """Deeper than a path may be long: each level is made from the one above."""
    top.mkdir()
    opened = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=opened)
        inner = os.open("deep", os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=opened))
    os.close(opened)


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    _make_deep(top, 3000)
    remove(top)
    assert not top.exists()


def test_a_tree_without_rights_is_removed_and_what_its_links_mean_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").touch()
    (top / "link").symlink_to(kept)
    (top / "a" / "b").chmod(0)
    (top / "a").chmod(0o500)
    leftovers._remove_inner(top)
    assert list(top.iterdir()) == []
    assert (kept / "file").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who was started by whom")
def test_processes_end_where_python_has_no_descriptors_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep, env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        end_processes(tmp_path)
        assert process.wait(20) == -signal.SIGKILL


def test_without_a_list_of_processes_none_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_PROCESSES", str(tmp_path / "gone"))
    end_processes(tmp_path)


def test_only_folders_that_are_surely_ours_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ours, young, old = "plugplay-tmp-abcd_123", ".plugplay-tmp-younger1", ".plugplay-tmp-older_12"
    others = ["plugplay-runner-discovery", "plugplay-tmp-mine", "plugplay-tmp-abcdefgh", young]
    for name in [ours, old, *others]:
        (tmp_path / name).mkdir()
    (tmp_path / ours / "1" / "file").mkdir(parents=True)
    (tmp_path / "plugplay-tmp-abcdefgh" / "pyproject.toml").touch()
    before = time.time() - 61
    os.utime(tmp_path / old, (before, before))
    folders = TemporaryFolders()
    folders.open()
    folders.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(others)


def test_a_forked_copy_leaves_the_folders_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = TemporaryFolders()
    folders.open()
    folder = folders.new()
    assert folder is not None
    with monkeypatch.context() as copy:
        copy.setattr(os, "getpid", lambda: -2)
        folders.close()
    assert folder.is_dir()
    folders.close()
    assert list(tmp_path.iterdir()) == []
