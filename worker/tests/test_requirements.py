"""What of a machine's files decides what is installed for a runner."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.requirements import Requirements, read_requirements
from worker.runner_code import code_digests
from worker.runners import RunnerFolder

MakeRunner = Callable[..., RunnerFolder]


def _read(runner: RunnerFolder) -> Requirements:
    return read_requirements(runner.path, {"SHARED": "shared", "EMPTY": ""})


def _shown(runner: RunnerFolder, paths: list[Path]) -> list[str]:
    return [os.path.relpath(path, runner.path) for path in paths]


@pytest.mark.parametrize(
    ("line", "kind", "path"),
    [
        ("-r base.txt", "files", "base.txt"),
        ("-rbase.txt", "files", "base.txt"),
        ("--requirement=../base.txt  # why", "files", "../base.txt"),
        ("-c constraints.txt", "files", "constraints.txt"),
        ("--constraint \\\n  ../constraints.txt", "files", "../constraints.txt"),
        ("-r ${SHARED}/base.txt", "files", "shared/base.txt"),
        ("-e ./local", "editable", "local"),
        ("--editable=../local[extra]", "editable", "../local"),
        ("-e .", "editable", "."),
        ("./local", "folders", "local"),
        ("./local[extra] ; python_version > '3.8'", "folders", "local"),
        (".", "around", "."),
        ("../..", "around", "../.."),
        ("--find-links ./wheels", "folders", "wheels"),
        ("./needle-1.0-py3-none-any.whl --hash=sha256:0", "archives", "needle-1.0-py3-none-any.whl"),
        ("needle @ file:///wheels/needle-1.0.tar.gz", "archives", "/wheels/needle-1.0.tar.gz"),
    ],
)
def test_what_a_line_refers_to_on_this_machine(make_runner: MakeRunner, line: str, kind: str, path: str) -> None:
    runner = make_runner("tiny", requirements=line)
    (runner.path / "local").mkdir()
    found = _read(runner)
    assert str(Path(os.path.normpath(runner.path / path))) in [str(one) for one in getattr(found, kind)]
    assert sum(map(len, (found.files, found.archives, found.folders, found.editable, found.around))) == 2


@pytest.mark.parametrize(
    "line",
    [
        "six==1.16.0",
        "local",
        "-e git+https://example.com/x.git#egg=x",
        "x @ https://example.com/x-1.0-py3-none-any.whl",
        "-r https://example.com/base.txt",
        "--index-url https://example.com/simple",
        "# -r base.txt",
        "-r",
        "--hash='",
    ],
)
def test_what_names_nothing_on_this_machine_is_left_to_pip(make_runner: MakeRunner, line: str) -> None:
    runner = make_runner("tiny", requirements=line)
    (runner.path / "local").mkdir()
    found = _read(runner)
    assert _shown(runner, found.files) == ["requirements.txt"]
    assert not [*found.archives, *found.folders, *found.editable, *found.around]


def test_files_that_include_each_other_are_read_once_and_from_where_they_lie(make_runner: MakeRunner) -> None:
    runner = make_runner("tiny", requirements="-r more/one.txt")
    (runner.path / "more").mkdir()
    (runner.path / "more" / "one.txt").write_text("-r ../requirements.txt\n-r two.txt\n-e ./local")
    (runner.path / "more" / "two.txt").write_bytes("-c three.txt".encode("utf-16"))
    found = _read(runner)
    assert _shown(runner, found.files) == ["requirements.txt", "more/one.txt", "more/two.txt", "more/three.txt"]
    # As pip does it: paths of packages begin where it is started.
    assert _shown(runner, found.editable) == ["local"]


def test_package_used_where_it_lies_makes_a_version_by_its_code_and_an_environment_by_how_it_is_built(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    runner = make_runner("tiny", requirements="-e ../../common")
    common = tmp_path / "common"
    (common / "build").mkdir(parents=True)
    (common / "pyproject.toml").write_text("")
    (common / "shared.py").write_text("x = 1")
    before = dict(_read(runner).installed()), code_digests(runner.path)
    (common / "build" / "shared.py").write_text("x = 1")
    assert (dict(_read(runner).installed()), code_digests(runner.path)) == before
    (common / "shared.py").write_text("x = 2")
    assert dict(_read(runner).installed()) == before[0]
    assert code_digests(runner.path) != before[1]
    (common / "pyproject.toml").write_text("[project]")
    assert dict(_read(runner).installed()) != before[0]


def test_package_that_is_copied_although_the_runner_lies_in_it_makes_another_environment_by_its_modules(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    runner = make_runner("tiny", requirements="../..")
    for file in ("pyproject.toml", "common/shared.py", "common/table.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    before = dict(_read(runner).installed())
    (runner.path / "runner_adapter.py").write_text("x = 1")
    (tmp_path / "common" / "table.json").write_text("{}")
    assert dict(_read(runner).installed()) == before
    (tmp_path / "common" / "shared.py").write_text("x = 1")
    assert dict(_read(runner).installed()) != before


def test_package_in_the_runners_own_folder_makes_another_environment_by_what_is_imported_from_the_copy(
    make_runner: MakeRunner,
) -> None:
    runner = make_runner("tiny", requirements=".")
    (runner.path / "src").mkdir()
    before = dict(_read(runner).installed())
    (runner.path / "beside.py").write_text("")
    assert dict(_read(runner).installed()) == before
    (runner.path / "src" / "copied.py").write_text("")
    assert dict(_read(runner).installed()) != before


def test_what_building_a_package_leaves_beside_its_modules_changes_nothing(make_runner: MakeRunner) -> None:
    runner = make_runner("tiny", requirements="./local")
    local = runner.path / "local"
    (local / "src" / "local.egg-info").mkdir(parents=True)
    (local / "pyproject.toml").write_text("")
    before = dict(_read(runner).installed())
    (local / "src" / "local.egg-info" / "PKG-INFO").write_text("Name: local")
    assert dict(_read(runner).installed()) == before


@pytest.mark.timeout(10)
def test_pipes_are_not_read(make_runner: MakeRunner) -> None:
    runner = make_runner("tiny", requirements="-r pipe.txt\n./local")
    (runner.path / "local").mkdir()
    for pipe in ("pipe.txt", "pipe.py", "local/pipe.json"):
        os.mkfifo(runner.path / pipe)
    assert {"pipe.py", "required pipe.txt", "required local/pipe.json"} <= code_digests(runner.path).keys()
