"""The folder for temporary files of a worker process."""

from pathlib import Path

from runnerlib.leftovers import OwnFolder


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


def test_no_folder_has_nothing_in_it(tmp_path: Path) -> None:
    for folder in (OwnFolder(None), OwnFolder(str(tmp_path / "gone"))):
        folder.keep_what_is_there()
        assert folder.left() == []
        folder.empty()
