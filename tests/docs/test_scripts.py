"""run.sh, test.sh and build.sh, with stand-ins for what they start."""

import shutil
import subprocess
from pathlib import Path

import pytest
from documents import ROOT

#: Tells what it was started with.
_ECHO = '#!/bin/sh\necho "started: $(basename "$0") $*"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts alone."""
    for name in ("run.sh", "test.sh", "build.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in (".ci/set-up", ".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/lint-imports", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(_ECHO)
        (tmp_path / name).chmod(0o755)
    for folder in ("worker", "runners/text", "runners/nlp", "runners/meme-classifier", "runners/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "conftest.py").write_text("")
    return tmp_path


def _run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", *words], cwd=checkout, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", ["run.sh", "test.sh", "build.sh"])
@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_is_shown_and_nothing_is_started(checkout: Path, script: str, words: list[str]) -> None:
    done = _run(checkout, script, *words)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: ./{script}")
    assert "started" not in done.stdout


def test_checks_look_at_our_own_runners_only(checkout: Path) -> None:
    done = _run(checkout, "test.sh", "--quick")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("started: ruff")]
    assert len(lines) == 2
    for words in lines:
        assert {"worker/", "conftest.py", "runners/text"} <= set(words)
        assert not {".", "runners/", "runners/mine"} & set(words)
    (tests,) = (line for line in done.stdout.splitlines() if "test-runners" in line)
    assert tests.endswith("test-runners --only=text --only=nlp --only=meme-classifier")


@pytest.mark.parametrize(("words", "marks"), [([], ""), (["--quick"], " and not slow")])
def test_serial_tests_run_alone_after_the_others(checkout: Path, words: list[str], marks: str) -> None:
    done = _run(checkout, "test.sh", *words, "tests/docs")
    first, second = (line for line in done.stdout.splitlines() if "-m pytest" in line)
    assert first.endswith(f" -m not serial{marks} tests/docs")
    assert second.endswith(f" --numprocesses 0 -m serial{marks} tests/docs")


def test_tests_with_images_and_with_containers_run_beside_each_other(checkout: Path) -> None:
    done = _run(checkout, "test.sh", "--images", "--containers")
    *_, last = (line for line in done.stdout.splitlines() if "-m pytest" in line)
    assert last.endswith("-m pytest --numprocesses 2 tests/images tests/containers")


@pytest.mark.parametrize(("code", "runs"), [(1, 1), (5, 2)])
def test_failed_test_is_not_run_again_and_no_test_at_all_is_a_mistake(checkout: Path, code: int, runs: int) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(f'{_ECHO}case "$*" in *pytest*) exit {code} ;; esac\n')
    done = _run(checkout, "test.sh", "tests/docs")
    assert done.returncode == code
    assert done.stdout.count("-m pytest") == runs
    assert "test-runners" not in done.stdout
