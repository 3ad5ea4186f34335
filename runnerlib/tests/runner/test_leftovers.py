"""What handlers leave behind, processes and files, ends with the worker process or earlier."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

ADAPTER = """
import asyncio, os, pathlib, subprocess, sys, tempfile

OPTIONS = {
    "once": {"max_tasks_per_process": 1},
    "async": {"slots": 2},
    **{name: {"process": "shared"} for name in ("start", "die", "folder")},
}
SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
LATER = "import subprocess, sys; print(subprocess.Popen({0!r}, start_new_session=True, stdout=2).pid)".format(SLEEP)


def load_made():
    return tempfile.mkdtemp()


def start(how: str) -> int:
    if how == "adopted":
        return int(subprocess.run([sys.executable, "-c", LATER], stdout=subprocess.PIPE).stdout)
    return subprocess.Popen(SLEEP, start_new_session=how == "session").pid


def run_start(how: str) -> list[int]:
    return [os.getpid(), start(how)]


def run_once(how: str) -> list[int]:
    return [os.getpid(), start(how)]


def run_die(how: str, log: str) -> None:
    pathlib.Path(log).write_text(str(start(how)))
    os._exit(3)


def run_temporary(*, made) -> list:
    place = pathlib.Path(tempfile.gettempdir())
    there = sorted(one.name for one in place.iterdir())
    (place / "file").write_text("left")
    (place / "sub" / "deep").mkdir(parents=True)
    (place / "sub").chmod(0o500)
    return [str(place), there, os.path.isdir(made), os.environ["TMPDIR"], os.getcwd()]


def run_folder(fail: bool, *, task) -> list:
    folder = task.folder
    assert folder == task.folder
    (folder / "file").write_text("mine")
    if fail:
        raise ValueError(str(folder))
    return [str(folder), [one.name for one in folder.iterdir()]]


async def run_async(name: str, seconds: float, *, task) -> list:
    (task.folder / name).write_text("mine")
    (pathlib.Path(tempfile.gettempdir()) / name).write_text("left")
    await asyncio.sleep(seconds)
    return [str(task.folder), [one.name for one in task.folder.iterdir()], tempfile.gettempdir()]
"""

HOW = ["child", "session", "adopted"]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where temporary files are made."""
    return tmp_path_factory.mktemp("tmp")


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any], place: Path) -> Any:
    return serve_adapter(ADAPTER, TMPDIR=str(place))


def test_each_call_finds_the_folder_for_temporary_files_as_it_was_when_the_adapter_had_loaded(
    runner: Any, place: Path, item: Any
) -> None:
    answers = [runner.run("temporary", {}).json()["result"] for _ in range(2)]
    answers += [entry["result"] for entry in runner.batch("temporary", [item(f"t{n}", {}) for n in range(3)])]
    folder, there, _, variable, cwd = answers[0]
    assert Path(folder).is_relative_to(place)
    assert (variable, Path(cwd)) == (folder, runner.folder)
    assert len(there) == 1
    assert [answer[1:3] for answer in answers] == [[there, True]] * 5


def test_the_folder_of_a_task_is_removed_after_its_run(runner: Any, item: Any) -> None:
    folder, files = runner.run("folder", {"fail": False}).json()["result"]
    assert files == ["file"]
    assert not Path(folder).exists()
    failed = runner.run("folder", {"fail": True}).json()["detail"].removeprefix("ValueError: ")
    assert failed != folder
    assert not Path(failed).exists()


def test_async_runs_have_folders_of_their_own_and_what_they_leave_goes_when_none_is_on(runner: Any, item: Any) -> None:
    payloads = [{"name": f"f{n}", "seconds": n / 5} for n in range(2)]
    entries = runner.batch("async", [item(f"a{n}", payload) for n, payload in enumerate(payloads)])
    folders = [entry["result"][0] for entry in entries]
    assert [entry["result"][1] for entry in entries] == [["f0"], ["f1"]]
    assert len(set(folders)) == 2
    assert not any(Path(folder).exists() for folder in folders)
    assert os.listdir(entries[0]["result"][2]) == []


def test_a_runner_without_a_place_for_temporary_files_works(
    serve_adapter: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import os\ndef run_x() -> bool:\n    return os.environ.get('TMPDIR') == '/nowhere/at/all'"
    source += "\nimport tempfile\ntempfile.gettempdir = lambda: '/nowhere/at/all'"
    runner = serve_adapter(source, TMPDIR="/nowhere/at/all")
    assert runner.run("x", {}).json() == {"result": True}
    assert "set TMPDIR to a folder" in runner.log


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who was started by whom")
def test_the_run_command_leaves_nothing_behind(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(ADAPTER)
    place = tmp_path / "tmp"
    place.mkdir()
    for how in HOW:
        done = subprocess.run(
            [sys.executable, "-m", "runnerlib", "run", "start", f'{{"how": "{how}"}}', "--path", str(path)],
            env={**os.environ, "TMPDIR": str(place)},
            stdout=subprocess.PIPE,
            timeout=60,
        )
        child = int(done.stdout.decode().strip("[]\n").split(",")[1])
        assert is_gone(child), how
    assert list(place.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who was started by whom")
def test_what_handlers_started_ends_with_their_worker_process(
    runner: Any, until: Any, place: Path, tmp_path: Path
) -> None:
    for how in HOW:
        _, child = runner.run("once", {"how": how}).json()["result"]
        until(lambda child=child: is_gone(child), f"the {how} of a recycled process is gone")
        log = tmp_path / how
        assert runner.run("die", {"how": how, "log": str(log)}).json()["code"] == "runner_lost"
        until(lambda log=log: is_gone(int(log.read_text())), f"the {how} of a process that died is gone")
    kept = [runner.run("start", {"how": how}).json()["result"] for how in HOW]
    assert not any(is_gone(child) for _, child in kept)
    assert runner.stop() == 0
    for how, (_, child) in zip(HOW, kept, strict=True):
        assert is_gone(child), how
    assert list(place.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who was started by whom")
def test_what_a_killed_runner_left_is_cleared_up_by_the_next_one(
    serve_adapter: Callable[..., Any], tmp_path: Path
) -> None:
    start = ADAPTER[: ADAPTER.index("def run_once")].replace("OPTIONS", "NO_OPTIONS")
    runner = serve_adapter(start, TMPDIR=str(tmp_path))
    left = [runner.run("start", {"how": how}).json()["result"][1] for how in HOW]
    (folder,) = tmp_path.iterdir()
    os.kill(runner.process.pid, signal.SIGKILL)
    runner.process.wait()
    assert folder.is_dir()
    other = serve_adapter("def run_x(): ...", TMPDIR=str(tmp_path))
    assert all(is_gone(pid) for pid in left)
    (its_own,) = tmp_path.iterdir()
    assert its_own != folder
    third = serve_adapter("def run_x(): ...", TMPDIR=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2  # nothing is taken from one that runs
    assert (third.stop(), other.stop()) == (0, 0)
    assert list(tmp_path.iterdir()) == []
