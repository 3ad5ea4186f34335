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
