"""The checkpoint beside a file, and where the next call begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from producer.cli.checkpoint import (
    Checkpoint,
    checkpoint_path,
    read_checkpoint,
    starting_point,
    write_checkpoint,
)
from producer.errors import BadInput

HALF = Checkpoint("http://g", "digest", "", line=5, offset=50, tasks=5, reached=5, last_id="x")
WHOLE = replace(HALF, is_complete=True)


def start(
    found: Checkpoint | None, gateway: str = "http://g", digest: str = "digest", still_known: bool = True, **more: Any
) -> Checkpoint:
    options = {"again": False, "run": None} | more
    return starting_point(found, gateway, digest, still_known=still_known, new_run="new", **options)


def fresh(run: str = "", gateway: str = "http://g", digest: str = "digest") -> Checkpoint:
    return Checkpoint(gateway, digest, run)


def test_first_time_is_one_run_for_the_content() -> None:
    assert start(None) == fresh()
    assert start(None, again=True) == fresh("new")
    assert start(None, run="mine") == fresh("mine")


def test_interrupted_goes_on_also_with_again() -> None:
    assert start(HALF) == start(HALF, again=True) == start(HALF, run="") == HALF


def test_sent_wholly_has_nothing_left_unless_again() -> None:
    assert start(WHOLE) == WHOLE
    assert start(WHOLE, again=True) == fresh("new")
    assert start(WHOLE, run="mine") == fresh("mine")


def test_another_gateway_gets_it_from_the_first_line() -> None:
    assert start(WHOLE, gateway="http://h") == fresh(gateway="http://h")


def test_changed_file_is_refused_unless_all_of_it_is_new() -> None:
    with pytest.raises(BadInput, match="its first 5 lines were sent"):
        start(HALF, digest="other")
    assert start(HALF, digest="other", again=True) == fresh("new", digest="other")


def test_environment_that_forgot_is_not_given_half() -> None:
    with pytest.raises(BadInput, match="--again"):
        start(HALF, still_known=False)
    assert start(HALF, still_known=False, again=True) == fresh("new")


def test_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    checkpoint = Checkpoint("http://g", "d", "run", 3, 40, 2, 4, "last", is_complete=True)
    write_checkpoint(tmp_path / "n", checkpoint)
    assert read_checkpoint(tmp_path / "n") == checkpoint
    assert [path.name for path in tmp_path.iterdir()] == ["n"]
    assert read_checkpoint(tmp_path / "none") is None


def test_it_is_beside_the_file_or_where_it_is_wanted(tmp_path: Path) -> None:
    file = Path("a/b.jsonl")
    assert checkpoint_path(file, None) == Path("a/b.jsonl.sent")
    assert checkpoint_path(file, tmp_path) == tmp_path / "b.jsonl.sent"
    assert checkpoint_path(file, tmp_path / "mine") == tmp_path / "mine"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"gateway": 1}'])
def test_something_else_in_its_place_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "n").write_text(content)
    with pytest.raises(BadInput, match="--sent"):
        read_checkpoint(tmp_path / "n")


def test_checkpoint_of_another_version_is_told(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "n", Checkpoint("http://g", "d", "", version=1))
    with pytest.raises(BadInput, match="another version"):
        read_checkpoint(tmp_path / "n")


def test_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        write_checkpoint(tmp_path / "no" / "n", Checkpoint("http://g", "d", ""))
    with pytest.raises(BadInput, match="cannot be read"):
        read_checkpoint(tmp_path)
