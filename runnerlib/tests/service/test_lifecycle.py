import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from runnerlib.service.lifecycle import StartupError, background, run_service
from runnerlib.service.settings import ServiceSettings

SETTINGS = ServiceSettings(grace_seconds=1)

SERVICE = """
import asyncio, os, sys, time
from runnerlib.service.lifecycle import background, run_service
from runnerlib.service.logs import configure_logging
from runnerlib.service.settings import ServiceSettings, load_settings

async def slow_stop():
    print("stopping", flush=True)
    await asyncio.sleep(float(sys.argv[2]))
    print("stopped", flush=True)

async def stubborn_stop():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def build(stack):
    mode = sys.argv[1]
    if mode == "slow": stack.push_async_callback(slow_stop)
    if mode == "stubborn": stack.push_async_callback(stubborn_stop)
    if mode == "blocked": stack.callback(time.sleep, 60)
    if mode == "starting":
        stack.callback(print, "unwound", flush=True)
        print("started", os.getpid(), flush=True)
        await asyncio.sleep(60)
    print("started", os.getpid(), flush=True)

settings = load_settings(ServiceSettings)
configure_logging("sample", settings)
code = run_service(build, settings)
print("code", code, flush=True)
sys.exit(code)
"""

Start = Callable[..., Any]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_order_and_exits_0(start: Start, number: signal.Signals) -> None:
    service = start(SERVICE, "slow", "0.2")
    service.wait_line("started")
    service.signal(number)
    assert service.wait() == 0
    assert [line.split()[0] for line in service.lines] == ["started", "stopping", "stopped", "code"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_exits_at_once(start: Start, number: signal.Signals, code: int) -> None:
    service = start(SERVICE, "slow", "60", GRACE_SECONDS="60")
    service.wait_line("started")
    service.signal(number)
    service.wait_line("stopping")
    service.signal(number)
    assert service.wait(5) == code


def test_a_signal_during_the_start_unwinds_what_was_started(start: Start) -> None:
    service = start(SERVICE, "starting")
    service.wait_line("started")
    service.signal(signal.SIGTERM)
    assert service.wait(5) == 0
    assert any("unwound" in line for line in service.lines)


def test_a_stop_that_takes_too_long_is_cancelled(start: Start) -> None:
    service = start(SERVICE, "slow", "60", GRACE_SECONDS="0")
    service.wait_line("started")
    began = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait(6) == 1
    assert time.monotonic() - began < 5
    service.wait_line("longer than grace_seconds")


@pytest.mark.parametrize("mode", ["stubborn", "blocked"])
def test_a_stop_that_hangs_ends_the_process(start: Start, mode: str) -> None:
    service = start(SERVICE, mode, GRACE_SECONDS="0")
    service.wait_line("started")
    service.signal(signal.SIGTERM)
    assert service.wait(8) == 1


def test_a_service_stops_when_its_parent_is_gone(start: Start) -> None:
    parent = start(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, sys.argv[1], 'slow', '0'])\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(60)\n",
        str(_script(start)),
        EXIT_WITH_PARENT="true",
    )
    child = int(parent.wait_line("started").split()[1])
    parent.process.kill()
    parent.process.wait(5)
    deadline = time.monotonic() + 5
    while _is_alive(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def _script(start: Start) -> str:
    service = start(SERVICE, "slow", "0")
    service.wait_line("started")
    return str(service.process.args[1])


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    async def build(stack: AsyncExitStack) -> None:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)

    assert run_service(build, SETTINGS) == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_start_that_fails_half_way_unwinds_and_exits_1() -> None:
    left: list[str] = []

    async def build(stack: AsyncExitStack) -> None:
        stack.callback(left.append, "first")
        stack.callback(left.append, "second")
        raise ValueError("half-way")

    assert run_service(build, SETTINGS) == 1
    assert left == ["second", "first"]


def test_a_startup_error_is_told_as_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    async def build(stack: AsyncExitStack) -> None:
        raise StartupError("port 80 is taken; set PORT")

    assert run_service(build, SETTINGS) == 1
    shown = "".join(capsys.readouterr())
    assert "port 80 is taken; set PORT" in shown
    assert "Traceback" not in shown


def test_a_failed_background_task_stops_the_service() -> None:
    left: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    async def build(stack: AsyncExitStack) -> None:
        stack.callback(left.append, "unwound")
        inner = await stack.enter_async_context(AsyncExitStack())
        background(inner, fail(), "sample loop")

    assert run_service(build, SETTINGS) == 1
    assert left == ["unwound"]


def test_a_background_task_that_ends_by_itself_stops_nothing() -> None:
    async def end() -> None: ...

    async def build(stack: AsyncExitStack) -> None:
        background(stack, end(), "ends")
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)

    assert run_service(build, SETTINGS) == 0


def test_a_component_that_fails_to_stop_gives_exit_code_1() -> None:
    async def build(stack: AsyncExitStack) -> None:
        async def fail() -> None:
            raise ValueError("cannot stop")

        stack.push_async_callback(fail)
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)

    assert run_service(build, SETTINGS) == 1


def test_outside_of_a_service_a_background_failure_is_raised_at_the_end() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            background(stack, fail(), "sample")
            await asyncio.sleep(0.01)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(scenario())
