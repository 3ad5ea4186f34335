"""Which runners there are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import BadVariables, NoRunners
from worker.runners import RunnerFolder, find_runners, list_runners, variables_of


def test_every_folder_with_an_adapter_is_a_runner(tmp_path: Path, make_runner: Callable[..., RunnerFolder]) -> None:
    for name in ("text", "nlp"):
        make_runner(name)
    (tmp_path / "runners" / "notes").mkdir()
    assert [(r.name, r.position) for r in find_runners(tmp_path / "runners")] == [("nlp", 0), ("text", 1)]


def test_only_keeps_the_position_and_so_the_port(tmp_path: Path, make_runner: Callable[..., RunnerFolder]) -> None:
    for name in ("text", "nlp"):
        make_runner(name)
    assert [(r.name, r.position) for r in find_runners(tmp_path / "runners", ["text"])] == [("text", 1)]


def test_misspelt_runner_is_told_with_the_near_one(tmp_path: Path, make_runner: Callable[..., RunnerFolder]) -> None:
    for name in ("text", "nlp"):
        make_runner(name)
    with pytest.raises(NoRunners, match="no runner called 'txt'; there are: text"):
        find_runners(tmp_path / "runners", ["txt"])


def test_a_folder_without_an_adapter_is_passed_over_until_somebody_asks_for_it(
    tmp_path: Path, make_runner: Callable[..., RunnerFolder]
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


def test_linked_folder_has_the_name_of_its_link(tmp_path: Path, make_runner: Callable[..., RunnerFolder]) -> None:
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
def variables(make_runner: Callable[..., RunnerFolder]) -> Callable[..., RunnerFolder]:
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
