"""Results are there when they are whole."""

from pathlib import Path

import pytest

from producer.cli.many import results_file
from producer.errors import BadInput


def test_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("old")
    with results_file(out) as write:
        write("ä")
        write("b")
        assert out.read_text() == "old"
    assert out.read_text(encoding="utf-8") == "ä\nb\n"
    with pytest.raises(KeyboardInterrupt), results_file(out) as write:
        write("half")
        raise KeyboardInterrupt
    assert out.read_text(encoding="utf-8") == "ä\nb\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nowhere_and_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for path in (None, Path("-")):
        with results_file(path) as write:
            write("line")
    assert capsys.readouterr().out == "line\n"


def test_place_that_cannot_be_written_is_told_before_the_wait(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"), results_file(tmp_path / "no" / "out"):
        pytest.fail("it waited")
