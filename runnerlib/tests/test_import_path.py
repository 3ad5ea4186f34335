"""A helper that is called like a module of the standard library harms nobody who does not import it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerlib.testing import serving

ADAPTER = """
import iniconfig
import helper
def run_x(text: str) -> str:
    import calendar, email.message, random
    return f"{text} {helper.NAME} {iniconfig.NAME} {calendar.MONDAY}"
"""
#: Python itself imports these before the first line of ours, unless it is started with -P.
OF_PYTHON = ("types", "functools", "contextlib", "warnings", "enum", "re", "collections")
OTHERS = ("queue", "json", "logging", "random", "email", "calendar", "platform", "asyncio", "socket", "typing")


@pytest.fixture
def shadow(tmp_path: Path) -> Callable[..., Path]:
    """A runner beside whose adapter lie files of these names, which end every process that imports them."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / f"{name}.py").write_text(f"import os\nos.write(2, b'{name} was imported')\nos._exit(9)\n")
        (tmp_path / "helper.py").write_text("NAME = 'helper'\n")
        (tmp_path / "pydantic.py").write_text("raise SystemExit('it is ours')\n")
        (tmp_path / "iniconfig.py").write_text("NAME = 'mine'\n")
        (tmp_path / "runner_adapter.py").write_text(ADAPTER)
        return tmp_path

    return make


def command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("options", "names"), [((), OTHERS), (("-P",), (*OTHERS, *OF_PYTHON))], ids=["by hand", "without the folder"]
)
def test_a_helper_with_the_name_of_a_standard_module_is_named_and_harms_nobody(
    shadow: Callable[..., Path], options: tuple[str, ...], names: tuple[str, ...]
) -> None:
    folder = shadow(*names)
    checked = command(folder, *options, "-m", "runnerlib", "check")
    assert checked.returncode == 0, checked.stderr
    for name in names:
        assert f"note: {name}.py is never imported, since the standard library has a module of that name" in (
            checked.stdout
        )
    assert "note: pydantic.py is never imported, since the runner itself has a module of that name" in checked.stdout
    ran = command(folder, *options, "-m", "runnerlib", "run", "x", '{"text": "a"}')
    assert (ran.returncode, ran.stdout) == (0, '"a helper mine 0"\n'), ran.stderr
    shelled = command(folder, *options, "-m", "runnerlib", "shell")
    assert "Traceback" not in shelled.stderr


def test_it_harms_no_worker_process_either(shadow: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shadow(*OTHERS)
    monkeypatch.chdir(folder)
    with serving(folder) as runner:
        assert runner.run("x", {"text": "a"}) == "a helper mine 0"


def test_an_adapter_that_needs_such_a_helper_is_told(shadow: Callable[..., Path]) -> None:
    folder = shadow()
    (folder / "queue.py").write_text("MINE = 1\n")
    (folder / "runner_adapter.py").write_text("from queue import MINE\ndef run_x(a: str) -> str:\n    return a\n")
    checked = command(folder, "-m", "runnerlib", "check")
    assert checked.returncode == 1
    assert "cannot import name 'MINE' from 'queue'" in checked.stderr
    assert "queue.py is never imported, since the standard library has a module of that name; call it my_queue.py" in (
        checked.stderr
    )


def test_the_current_folder_is_looked_at_after_the_adapters(shadow: Callable[..., Path]) -> None:
    folder = shadow()
    below = folder / "runner"
    below.mkdir()
    (folder / "runner_adapter.py").rename(below / "runner_adapter.py")
    (below / "iniconfig.py").write_text("NAME = 'below'\n")
    ran = command(folder, "-m", "runnerlib", "run", "x", '{"text": "a"}', "--path", "runner")
    assert (ran.returncode, ran.stdout) == (0, '"a helper below 0"\n'), ran.stderr
