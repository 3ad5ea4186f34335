"""What of a runner's folder is its code, the copy that is run, and what decides what is installed for it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from worker import runner_code
from worker.runner_code import (
    Requirements,
    code_digests,
    code_files,
    copy_code,
    place_among_neighbours,
    read_requirements,
    version_of,
)
from worker.runners import RunnerFolder

MakeRunner = Callable[..., RunnerFolder]


@pytest.fixture
def folder(make_runner: MakeRunner) -> Path:
    """A runner with a package, a model, tests, and all that lies around in such folders."""
    path = make_runner("rich", "import words\n").path
    for file in (
        "words/__init__.py",
        "words/deep/most.py",
        "model/weights.bin",
        "words/list.json",
        ".env",
        ".git/hook.py",
        "__pycache__/runner_adapter.cpython-311.pyc",
        "venv/pyvenv.cfg",
        "venv/lib/site.py",
        "test_runner_adapter.py",
        "conftest.py",
        ".#runner_adapter.py",
        "runner_adapter.py~",
    ):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text(f"# {file}")
    return path


def test_code_is_modules_and_requirements_without_tests_and_what_is_hidden(folder: Path) -> None:
    assert [str(file) for file in code_files(folder)] == [
        "requirements.txt",
        "runner_adapter.py",
        "words/__init__.py",
        "words/deep/most.py",
    ]


def test_digest_follows_content_and_names_and_not_times(folder: Path) -> None:
    seen = [version_of(code_digests(folder))]
    os.utime(folder / "runner_adapter.py", (1, 1))
    (folder / "test_runner_adapter.py").write_text("another test")
    (folder / "model" / "weights.bin").write_text("more weights")
    assert version_of(code_digests(folder)) == seen[0]
    (folder / "words" / "deep" / "most.py").write_text("x = 1")
    seen.append(version_of(code_digests(folder)))
    (folder / "words" / "deep" / "most.py").rename(folder / "words" / "deep" / "least.py")
    seen.append(version_of(code_digests(folder)))
    (folder / "requirements.txt").unlink()
    seen.append(version_of(code_digests(folder)))
    assert len(set(seen)) == 4


def test_copy_is_not_reached_by_later_edits_and_finds_its_data(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert copy_code(folder, copy) == code_digests(folder)
    (folder / "runner_adapter.py").write_text("broken(")
    assert (copy / "runner_adapter.py").read_text() == "import words\n"
    assert (copy / "words" / "deep" / "most.py").read_text() == "# words/deep/most.py"
    for linked in ("model", "words/list.json", ".env"):
        assert (copy / linked).is_symlink()
        assert (copy / linked).exists()
    assert not (copy / "__pycache__").exists()


def test_copy_cannot_be_edited_by_mistake(folder: Path, tmp_path: Path) -> None:
    copy_code(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "runner_adapter.py").stat().st_mode & 0o222 == 0


def test_linked_package_is_code_and_its_copy_is_not_reached_by_later_edits(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "deep").mkdir(parents=True)
    (shared / "__init__.py").write_text("x = 1")
    (shared / "deep" / "table.json").write_text("{}")
    (shared / "deep" / "more.py").write_text("")
    (shared / "around").symlink_to(folder)
    (folder / "shared").symlink_to(shared)
    copy = tmp_path / "copy"
    copy_code(folder, copy)
    before = [str(file) for file in code_files(folder)]
    assert [file for file in before if file.startswith("shared")] == ["shared/__init__.py", "shared/deep/more.py"]
    (shared / "__init__.py").write_text("x = 2")
    assert (copy / "shared" / "__init__.py").read_text() == "x = 1"
    assert (copy / "shared" / "deep" / "table.json").read_text() == "{}"
    assert not (copy / "shared").is_symlink()


def test_link_from_a_package_back_to_the_folder_makes_no_new_version_of_the_copy(folder: Path, tmp_path: Path) -> None:
    (folder / "words" / "root").symlink_to("..")
    copied = copy_code(folder, tmp_path / "copy")
    assert version_of(copied) == version_of(code_digests(folder))
    assert (tmp_path / "copy" / "words" / "root").is_symlink()


def test_link_to_a_folder_above_brings_no_code_of_other_runners(folder: Path, make_runner: MakeRunner) -> None:
    make_runner("other")
    before = code_files(folder)
    (folder / "up").symlink_to("..")
    (folder / "words" / "far").symlink_to(folder.parent.parent)
    assert code_files(folder) == before


def test_folder_that_is_itself_a_virtual_environment_has_code(folder: Path) -> None:
    before = code_files(folder)
    (folder / "pyvenv.cfg").write_text("")
    assert code_files(folder) == before


def test_link_to_too_much_is_data(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    much = tmp_path / "much"
    much.mkdir()
    for number in range(30):
        (much / f"m{number}.py").write_text("")
    (folder / "much").symlink_to(much)
    assert len(code_files(folder)) == 34
    monkeypatch.setattr(runner_code, "_MOST_ENTRIES", 20)
    assert len(code_files(folder)) == 4
    copy_code(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "much").is_symlink()


def test_what_lies_beside_and_above_the_folder_is_found_from_the_copy(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "shared.json").write_text("1")
    (tmp_path / "data" / "code").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "words.txt").write_text("2")
    copy = place_among_neighbours(folder, tmp_path / "data" / "code" / "rich-0")
    copy_code(folder, copy)
    adapter = copy / "runner_adapter.py"
    assert adapter.resolve() == adapter
    assert (adapter.parent.parent / "other" / "words.txt").read_text() == "2"
    assert (adapter.parent.parent.parent / "common" / "shared.json").read_text() == "1"
    assert not (copy.parent.parent / "data").exists()
    assert not (copy.parent.parent / ".git").exists()
    shutil.rmtree(tmp_path / "data" / "code" / "rich-0")
    assert (tmp_path / "common" / "shared.json").exists()
    assert (folder / "runner_adapter.py").exists()


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
