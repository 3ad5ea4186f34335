"""Which runners there are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import NoRunners
from worker.runners import RunnerFolder, find_runners, list_runners


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
