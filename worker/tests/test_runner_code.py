"""What of a runner's folder is its code, and the copy that is run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.runner_code import code_files, copy_code, digest
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
    seen = [digest(folder)]
    os.utime(folder / "runner_adapter.py", (1, 1))
    (folder / "test_runner_adapter.py").write_text("another test")
    (folder / "model" / "weights.bin").write_text("more weights")
    assert digest(folder) == seen[0]
    (folder / "words" / "deep" / "most.py").write_text("x = 1")
    seen.append(digest(folder))
    (folder / "words" / "deep" / "most.py").rename(folder / "words" / "deep" / "least.py")
    seen.append(digest(folder))
    (folder / "requirements.txt").unlink()
    seen.append(digest(folder))
    assert len(set(seen)) == 4


def test_copy_is_not_reached_by_later_edits_and_finds_its_data(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert copy_code(folder, copy) == digest(folder)
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
