"""The note beside a file."""

from pathlib import Path

import pytest

from producer.errors import BadInput
from producer.sending.sent_note import SentNote, note_path, read_note, write_note


def test_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    note = SentNote("http://g", "d", "run", 3, 40, 2, "last", ((2, 10),), is_complete=True)
    write_note(tmp_path / "n", note)
    assert read_note(tmp_path / "n") == note
    assert [path.name for path in tmp_path.iterdir()] == ["n"]
    assert read_note(tmp_path / "none") is None


def test_note_lies_beside_the_file_or_where_it_is_wanted(tmp_path: Path) -> None:
    file = Path("a/b.jsonl")
    assert note_path(file, None) == Path("a/b.jsonl.sent")
    assert note_path(file, tmp_path) == tmp_path / "b.jsonl.sent"
    assert note_path(file, tmp_path / "mine") == tmp_path / "mine"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"gateway": 1}'])
def test_something_else_in_its_place_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "n").write_text(content)
    with pytest.raises(BadInput, match="--sent"):
        read_note(tmp_path / "n")


def test_note_of_another_version_is_told(tmp_path: Path) -> None:
    write_note(tmp_path / "n", SentNote("http://g", "d", "", version=2))
    with pytest.raises(BadInput, match="another version"):
        read_note(tmp_path / "n")


def test_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        write_note(tmp_path / "no" / "n", SentNote("http://g", "d", ""))
    with pytest.raises(BadInput, match="cannot be read"):
        read_note(tmp_path)
