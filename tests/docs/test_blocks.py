"""Fenced blocks of the pages: adapters pass the check, tests pass, and what is not tried says why."""

import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, Block, blocks

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCKS = [block for page in PAGES for block in blocks(page)]
#: Not for a shell or an interpreter: what is shown in a page, and excerpts of data.
SHOWN = {"text", "json", "http"}


def _is_adapter(block: Block) -> bool:
    """A whole one; parts, which may be wrong on purpose, are tried by test_commands."""
    has_handler = "def run_" in block.text or "def batch_" in block.text
    return block.language == "python" and has_handler and not block.is_part and not block.not_run


@pytest.mark.parametrize("block", [block for block in BLOCKS if _is_adapter(block)], ids=lambda block: block.place)
def test_adapters_pass_the_check(block: Block, tmp_path: Path) -> None:
    (tmp_path / "runner_adapter.py").write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "runnerlib", "check", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_of_a_page_pass(page: Path, tmp_path: Path) -> None:
    written = [block for block in blocks(page) if block.file and not block.not_run]
    tests = [tmp_path / block.file for block in written if Path(block.file).name.startswith("test_")]
    if not tests:
        return
    for block in written:
        path = tmp_path / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.written_into(path.read_text() if path.exists() else ""), encoding="utf-8")
    for test in tests:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name]
        done = subprocess.run(command, cwd=test.parent, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_tried_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        tried = block.language in ("sh", "console") or _is_adapter(block) or block.file
        assert tried or block.language in SHOWN or block.not_run, f"{block.place} is neither tried nor explained"


def test_the_first_algorithm_is_two_changed_lines_of_what_worker_new_makes(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "worker", "new", "runner", "shout", "--runners", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    made = (tmp_path / "shout" / "runner_adapter.py").read_text(encoding="utf-8").splitlines()
    [edited] = [
        block.text.splitlines()
        for block in blocks(ROOT / "docs" / "first-algorithm.md")
        if block.file == "runners/shout/runner_adapter.py" and not block.is_part
    ]
    assert sum(before != after for before, after in zip(made, edited, strict=True)) == 2
