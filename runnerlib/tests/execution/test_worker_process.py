"""The end of a worker process, however it comes, is told."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from runnerlib.execution import worker_process
from runnerlib.execution.outcomes import Death
from runnerlib.execution.worker_process import StartFailed, WorkerProcess, memory_kills, start_process
from runnerlib.frames import READY, encode
from runnerlib.leftovers import TemporaryFolders

PATIENCE_SECONDS = 60.0
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


async def _connection() -> "tuple[asyncio.Transport, worker_process._Frames, Callable[[], None]]":
    """What a process is connected with, and what closes its ends."""
    ours, theirs = worker_process.socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    reading, writing = os.pipe()

    def close() -> None:
        theirs.close()
        os.close(writing)

    return transport, worker_process._Frames(reading), close


async def _watched(process: "subprocess.Popen[bytes]", then: Callable[[], None], folder: Path | None = None) -> Death:
    """How the end of `process` is told, once `then` has ended it."""
    transport, frames, close = await _connection()
    worker = WorkerProcess(process, folder, transport, frames)
    then()
    death = await asyncio.wait_for(worker.exited, PATIENCE_SECONDS)
    await asyncio.wait_for(worker._cleared, PATIENCE_SECONDS)
    close()
    return death


def _started() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(SLEEP, start_new_session=True)


def test_the_end_is_told_when_the_adapter_ignores_the_signal_of_ended_children() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = _started()
        assert asyncio.run(_watched(process, process.kill)).returncode == 0
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("what", ["clear_up", "os.waitid"])
def test_the_end_is_told_when_clearing_up_fails(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise RecursionError

    process = _started()
    monkeypatch.setattr(f"runnerlib.execution.worker_process.{what}", fail)
    asyncio.run(_watched(process, process.kill, tmp_path))
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def test_one_that_dies_slowly_of_its_own_is_not_said_to_have_lost_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_process, "_LAST_FRAMES_SECONDS", 0.0)
    monkeypatch.setattr(WorkerProcess, "kill", lambda self: os.kill(self.pid, signal.SIGTERM))
    process = _started()

    async def cut_off() -> Death:
        transport, frames, close = await _connection()
        close()
        return await asyncio.wait_for(WorkerProcess(process, None, transport, frames).exited, PATIENCE_SECONDS)

    death = asyncio.run(cut_off())
    assert (death.returncode, death.is_cut_off) == (-signal.SIGTERM, False)


@pytest.mark.parametrize("missing", ["process", "thread"])
def test_a_process_that_the_system_does_not_give_leaves_nothing(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def popen(*_: Any) -> "subprocess.Popen[bytes]":
        if missing == "process":
            raise BlockingIOError("no more processes")
        started.append(_started())
        return started[0]

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def start() -> None:
        with monkeypatch.context() as full:
            full.setattr(worker_process, "_popen", popen)
            if missing == "thread":
                full.setattr(threading.Thread, "start", refuse)
            await start_process({}, lambda _: None, folders)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = TemporaryFolders()
    folders.open()
    with pytest.raises(StartFailed, match=r"no more processes|new thread"):
        asyncio.run(start())
    assert [one.returncode for one in started] == [-signal.SIGKILL] * len(started)
    (root,) = tmp_path.iterdir()
    assert list(root.iterdir()) == []
    folders.close()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/vmstat": "oom_kill 9"}, 9),
        ({"proc/vmstat": "oom_kill 9", "sys/fs/cgroup/memory.events": "oom 3\noom_kill 2\n"}, 2),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.events": "oom_kill 4"}, 4),
        ({"proc/self/cgroup": "4:memory:/b\n0::/", "sys/fs/cgroup/memory/b/memory.oom_control": "oom_kill 5"}, 5),
        ({"proc/self/cgroup": "4:memory:/b", "sys/fs/cgroup/memory/memory.oom_control": "oom_kill 6"}, 6),
    ],
)
def test_kills_for_lack_of_memory_are_counted_where_they_are_nearest(
    files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_kills(tmp_path) == expected


def test_kills_from_before_a_call_are_not_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter([3, 4, 4])
    monkeypatch.setattr(worker_process, "memory_kills", lambda: next(counted))
    monkeypatch.setattr(worker_process, "_COUNT_SECONDS", 0.0)
    process = _started()

    async def watched() -> Death:
        transport, frames, close = await _connection()
        worker = WorkerProcess(process, None, transport, frames)
        worker.recount_memory_kills()
        worker.kill()
        death = await asyncio.wait_for(worker.exited, PATIENCE_SECONDS)
        close()
        return death

    assert asyncio.run(watched()).memory_ran_out is False


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_has_the_number_of_a_closed_pipe_stays_open(
    run: Callable[[Coroutine[Any, Any, None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    close_it = os.close

    def close_and_note(descriptor: int) -> None:
        closed.append(descriptor)
        close_it(descriptor)

    async def scenario() -> None:
        reading, writing = os.pipe()
        frames = worker_process._Frames(reading)
        monkeypatch.setattr(worker_process.os, "close", close_and_note)
        close_it(writing)
        await asyncio.wait_for(frames.closed, PATIENCE_SECONDS)
        # Nothing but `os.close` closes it, so no loop does so behind its back.
        assert closed == [reading]
        other = os.open(os.devnull, os.O_RDONLY)
        assert other == reading
        frames.close()
        for _ in range(3):
            await asyncio.sleep(0)
        os.fstat(other)
        close_it(other)

    run(scenario())


def test_frames_that_cannot_be_understood_end_the_connection() -> None:
    errors: list[dict[str, Any]] = []

    def refuse(_: object) -> None:
        raise ValueError("no outcome")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        reading, writing = os.pipe()
        frames = worker_process._Frames(reading)
        frames.on_frames = refuse
        os.write(writing, encode(READY))
        await asyncio.wait_for(frames.closed, PATIENCE_SECONDS)
        os.close(writing)

    asyncio.run(scenario())
    assert [str(context["exception"]) for context in errors] == ["no outcome"]
