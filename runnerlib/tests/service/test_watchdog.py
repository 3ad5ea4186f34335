"""A process whose event loop hangs is ended; one that was only frozen is not."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SERVICE = """
import asyncio, os, re, signal, sys, time
from runnerlib.service.lifecycle import run_service
from runnerlib.service.logs import configure_logging
from runnerlib.service.settings import ServiceSettings, load_settings

def hang():
    print("hanging", flush=True)
    if sys.argv[1] == "sleeps":
        time.sleep(60)
    if sys.argv[1] == "holds the lock":
        re.match("(a+)+$", "a" * 60 + "b")

async def build(stack):
    if sys.argv[1] == "slow start":
        time.sleep(1)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, loop.call_later, 0.1, hang)  # once the start is over
    loop.add_signal_handler(signal.SIGUSR2, lambda: print("alive", flush=True))
    print("started", flush=True)

settings = load_settings(ServiceSettings)
configure_logging("sample", settings)
sys.exit(run_service(build, settings))
"""

Start = Callable[..., Any]


def test_a_process_whose_loop_stands_still_says_what_it_is_at_and_ends(start: Start) -> None:
    service = start(SERVICE, "sleeps", WATCHDOG_SECONDS="0.4", LOG_FORMAT="json")
    service.wait_line("started")
    service.signal(signal.SIGUSR1)
    assert service.wait() == 70
    line = service.wait_line("the event loop stood still for 0.4 s")
    assert "MainThread" in line
    assert "time.sleep(60)" in line


def test_a_call_that_lets_no_thread_run_is_ended_too(start: Start) -> None:
    service = start(SERVICE, "holds the lock", WATCHDOG_SECONDS="0.2")
    service.wait_line("started")
    service.signal(signal.SIGUSR1)
    assert service.wait(30) == -signal.SIGPROF
    assert any("in hang" in line for line in service.lines)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells that a process is stopped")
def test_a_process_that_was_frozen_goes_on(start: Start) -> None:
    service = start(SERVICE, "idle", WATCHDOG_SECONDS="0.4")
    service.wait_line("started")
    service.signal(signal.SIGSTOP)
    stat = Path(f"/proc/{service.process.pid}/stat")
    deadline = time.monotonic() + 10
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
    threading.Event().wait(1.5)
    service.signal(signal.SIGCONT)
    service.signal(signal.SIGUSR2)
    service.wait_line("alive")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


@pytest.mark.parametrize(("how", "seconds"), [("sleeps", "0"), ("slow start", "0.3")])
def test_no_limit_and_a_slow_start_are_allowed(start: Start, how: str, seconds: str) -> None:
    service = start(SERVICE, how, WATCHDOG_SECONDS=seconds)
    service.wait_line("started")
    service.signal(signal.SIGUSR2)
    service.wait_line("alive")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
