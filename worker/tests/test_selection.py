"""Which runners an environment has, and how many processes of each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import BadScale, NoRunners
from worker.runners import RunnerFolder
from worker.selection import leaving_out, read_scale, select
from worker.settings import WorkerSettings, read_settings

MakeRunner = Callable[..., RunnerFolder]


def test_none_of_a_runner_is_started_at_scale_0_and_new_ones_join(tmp_path: Path, make_runner: MakeRunner) -> None:
    for name in ("nlp", "text"):
        make_runner(name)
    selection = select(WorkerSettings(runners_folder=tmp_path / "runners", scale="nlp=0,text=2"), [])
    assert [(runner.name, runner.position) for runner in selection.runners()] == [("text", 0)]
    assert (selection.count("text"), selection.count("shout")) == (2, 1)
    make_runner("shout")
    assert [runner.name for runner in selection.runners()] == ["shout", "text"]


def test_only_some_stay_the_only_ones(tmp_path: Path, make_runner: MakeRunner) -> None:
    make_runner("text")
    selection = select(WorkerSettings(runners_folder=tmp_path / "runners"), ["text"])
    make_runner("shout")
    assert [(runner.name, runner.position) for runner in selection.runners()] == [("text", 1)]


def test_scale_on_the_command_line_wins_for_the_runners_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE", "nlp=0,text=2")
    assert read_scale([read_settings(scale=["text=3", "ocr=1"]).scale]) == {"nlp": 0, "text": 3, "ocr": 1}
    assert read_scale([read_settings().scale]) == {"nlp": 0, "text": 2}


def test_what_is_left_out_is_started_all_the_same_when_the_scale_names_it() -> None:
    without = leaving_out(WorkerSettings(scale="text=2"), ["images"])
    assert read_scale([without.scale]) == {"images": 0, "text": 2}
    wanted = leaving_out(WorkerSettings(scale="images=1"), ["images"])
    assert read_scale([wanted.scale]) == {"images": 1}
    assert read_scale([leaving_out(WorkerSettings(), ["my images"]).scale]) == {"my images": 0}


def test_misspelt_name_in_the_scale_is_told_with_the_near_one(tmp_path: Path, make_runner: MakeRunner) -> None:
    make_runner("text")
    with pytest.raises(NoRunners, match="no runner called 'txt'; there are: text"):
        select(WorkerSettings(runners_folder=tmp_path / "runners", scale="txt=2"), [])


def test_words_may_be_repeated_and_later_ones_win() -> None:
    assert read_scale(["nlp=2, text=3", "", "text = 0"]) == {"nlp": 2, "text": 0}


@pytest.mark.parametrize("word", ["nlp", "nlp=", "nlp=two", "=2", "nlp=-1", "nlp=2.5", "nlp=1e3"])
def test_what_cannot_be_read_is_told_with_an_example(word: str) -> None:
    with pytest.raises(BadScale, match="write it like nlp=2,text=3"):
        read_scale([word])


def test_slip_of_the_pen_starts_no_thousand_processes() -> None:
    with pytest.raises(BadScale, match="nlp=1000 is more than the 64"):
        read_scale(["nlp=1000"])
