"""Which runners there are, and how many processes of each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import BadScale, BadVariables, NoRunners
from worker.runners import RunnerFolder, find_runners, list_runners, read_scale, scale_without, select, variables_of
from worker.settings import read_settings

MakeRunner = Callable[..., RunnerFolder]


def test_every_folder_with_an_adapter_is_a_runner(tmp_path: Path, make_runner: MakeRunner) -> None:
    for name in ("text", "nlp"):
        make_runner(name)
    (tmp_path / "runners" / "notes").mkdir()
    assert [(r.name, r.position) for r in find_runners(tmp_path / "runners")] == [("nlp", 0), ("text", 1)]


def test_only_keeps_the_position_and_so_the_port(tmp_path: Path, make_runner: MakeRunner) -> None:
    for name in ("text", "nlp"):
        make_runner(name)
    assert [(r.name, r.position) for r in find_runners(tmp_path / "runners", ["text"])] == [("text", 1)]


def test_misspelt_runner_is_told_with_the_near_one(tmp_path: Path, make_runner: MakeRunner) -> None:
    for name in ("text", "nlp"):
        make_runner(name)
    with pytest.raises(NoRunners, match="no runner called 'txt'; there are: text"):
        find_runners(tmp_path / "runners", ["txt"])


def test_a_folder_without_an_adapter_is_passed_over_until_somebody_asks_for_it(
    tmp_path: Path, make_runner: MakeRunner
) -> None:
    make_runner("text")
    (tmp_path / "runners" / "node").mkdir()
    assert [runner.name for runner in find_runners(tmp_path / "runners")] == ["text"]
    with pytest.raises(NoRunners, match=r"node has no runner_adapter\.py: it is no runner of worker's"):
        find_runners(tmp_path / "runners", ["node"])


def test_empty_and_missing_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(NoRunners, match="holds no runner"):
        find_runners(tmp_path)
    with pytest.raises(NoRunners, match="--runners"):
        find_runners(tmp_path / "missing")


def test_linked_folder_has_the_name_of_its_link(tmp_path: Path, make_runner: MakeRunner) -> None:
    runners = tmp_path / "runners"
    make_runner("plain")
    for name in ("nlp", "txt"):
        release = tmp_path / "releases" / name / "current"
        release.mkdir(parents=True)
        (release / "runner_adapter.py").write_text("")
        (runners / f"{name}2").symlink_to(release)
    assert [(r.name, r.position) for r in list_runners(runners)] == [("nlp2", 0), ("plain", 1), ("txt2", 2)]
    assert [r.name for r in find_runners(runners, ["txt2"])] == ["txt2"]


@pytest.fixture
def variables(make_runner: MakeRunner) -> Callable[..., RunnerFolder]:
    """A runner with this file of variables."""

    def make(text: str, mode: int = 0o600) -> RunnerFolder:
        runner = make_runner("text")
        (runner.path / ".env").write_text(text)
        (runner.path / ".env").chmod(mode)
        return runner

    return make


def test_variables_of_a_runner_are_read_as_they_stand(variables: Callable[..., RunnerFolder]) -> None:
    runner = variables("# for us\nDEVICE=cuda:1\n\nexport TOKEN='a $HOME b'\nEMPTY=\nQUOTED=\"x y\"\n")
    assert variables_of(runner) == {"DEVICE": "cuda:1", "TOKEN": "a $HOME b", "EMPTY": "", "QUOTED": "x y"}
    (runner.path / ".env").unlink()
    assert variables_of(runner) == {}


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        ("TOKEN=hush", 0o644, r"others can read it \(mode 644\); do: chmod 600 .*text/\.env$"),
        ("TOKEN=hush", 0o620, "others can read it"),
        ("A=1\n\nhush hush\n", 0o600, r"text/\.env, line 3: it is not NAME=value$"),
        ("A=1\nhush\n", 0o600, r"text/\.env, line 2: it is not NAME=value$"),
    ],
)
def test_variables_that_others_can_read_or_that_cannot_be_read_are_refused_in_a_sentence(
    variables: Callable[..., RunnerFolder], text: str, mode: int, sentence: str
) -> None:
    with pytest.raises(BadVariables, match=sentence) as error:
        variables_of(variables(text, mode))
    assert "hush" not in str(error.value)


def test_none_of_a_runner_is_started_at_scale_0_and_new_ones_join(tmp_path: Path, make_runner: MakeRunner) -> None:
    for name in ("nlp", "text"):
        make_runner(name)
    selection = select(tmp_path / "runners", "nlp=0,text=2", [])
    assert [(runner.name, runner.position) for runner in selection.runners()] == [("text", 0)]
    assert (selection.count("text"), selection.count("shout")) == (2, 1)
    make_runner("shout")
    assert [runner.name for runner in selection.runners()] == ["shout", "text"]


def test_only_some_stay_the_only_ones(tmp_path: Path, make_runner: MakeRunner) -> None:
    make_runner("text")
    selection = select(tmp_path / "runners", "", ["text"])
    make_runner("shout")
    assert [(runner.name, runner.position) for runner in selection.runners()] == [("text", 1)]


def test_scale_on_the_command_line_wins_for_the_runners_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE", "nlp=0,text=2")
    assert read_scale(read_settings(scale=["text=3", "ocr=1"]).scale) == {"nlp": 0, "text": 3, "ocr": 1}
    assert read_scale(read_settings().scale) == {"nlp": 0, "text": 2}


def test_what_is_left_out_is_started_all_the_same_when_the_scale_names_it() -> None:
    assert read_scale(scale_without(["images"], "text=2")) == {"images": 0, "text": 2}
    assert read_scale(scale_without(["images"], "images=1")) == {"images": 1}
    assert read_scale(scale_without(["my images"], "")) == {"my images": 0}


def test_misspelt_name_in_the_scale_is_told_with_the_near_one(tmp_path: Path, make_runner: MakeRunner) -> None:
    make_runner("text")
    with pytest.raises(NoRunners, match="no runner called 'txt'; there are: text"):
        select(tmp_path / "runners", "txt=2", [])


def test_words_may_be_repeated_and_later_ones_win() -> None:
    assert read_scale("nlp=2, text=3,,text = 0") == {"nlp": 2, "text": 0}


@pytest.mark.parametrize("word", ["nlp", "nlp=", "nlp=two", "=2", "nlp=-1", "nlp=2.5", "nlp=1e3"])
def test_what_cannot_be_read_is_told_with_an_example(word: str) -> None:
    with pytest.raises(BadScale, match="write it like nlp=2,text=3"):
        read_scale(word)


def test_slip_of_the_pen_starts_no_thousand_processes() -> None:
    with pytest.raises(BadScale, match="nlp=1000 is more than the 64"):
        read_scale("nlp=1000")
