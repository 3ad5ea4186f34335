"""Lines of children; one process: shown, started again, stopped."""

import asyncio
import io
import os
import signal
from collections.abc import Callable

import psutil
import pytest

from worker import processes
from worker.errors import StartFailed
from worker.output import Output
from worker.plan import ProcessPlan
from worker.processes import LineSplitter, ManagedProcess, RestartBackoff, explained, parse_reasons

Plan = Callable[..., ProcessPlan]


def test_lines_carry_the_name_of_their_process(service_plan: Plan, output: Output, terminal: io.StringIO) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan(name="text"), output)
        process.start()
        await process.wait_ready(60)
        await process.stop()

    asyncio.run(scenario())
    assert "text       │ hello from" in terminal.getvalue()


def test_process_that_dies_is_started_again(
    service_plan: Plan, output: Output, terminal: io.StringIO, until_async: Callable[..., object]
) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan(first_delay_seconds=0.05), output)
        process.start()
        await process.wait_ready(60)
        first = process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until_async(lambda: process.pid not in (None, first))
        await process.wait_ready(60)
        assert process.restarts == 1
        await process.stop()
        assert process.pid is None

    asyncio.run(scenario())
    assert "service was ended by SIGKILL; it is started again in 0.05 s" in terminal.getvalue()


def test_process_that_was_ready_each_time_is_never_kept_waiting(
    service_plan: Plan,
    output: Output,
    terminal: io.StringIO,
    until_async: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Any time of being ready counts.
    monkeypatch.setattr(processes, "READY_SECONDS", 1e-9, raising=False)

    async def scenario() -> None:
        process = ManagedProcess(service_plan(first_delay_seconds=0.05), output)
        process.start()
        for _ in range(6):
            await process.wait_ready(60)
            killed = process.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await until_async(lambda killed=killed: process.pid not in (None, killed))
        await process.stop()

    asyncio.run(scenario())
    assert terminal.getvalue().count("it is started again in 0.05 s") == 6


def test_fatal_exit_code_is_final_and_advice_is_shown(
    service_plan: Plan, output: Output, terminal: io.StringIO
) -> None:
    async def scenario() -> None:
        plan = service_plan("exit3", fatal_exit_codes=frozenset({3}), advice="mend the adapter")
        process = ManagedProcess(plan, output)
        process.start()
        with pytest.raises(StartFailed, match="ended before it was ready"):
            await process.wait_ready(60)
        assert process.restarts == 0
        assert process.has_given_up
        await process.stop()

    asyncio.run(scenario())
    assert "service is not started again: mend the adapter" in terminal.getvalue()


def test_start_that_dies_again_and_again_is_given_up(service_plan: Plan, output: Output) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan("exit1", first_delay_seconds=0.01), output)
        process.start()
        with pytest.raises(StartFailed, match="does not stay alive"):
            await process.wait_ready(20, most_restarts=1)
        await process.stop()

    asyncio.run(scenario())


def test_stubborn_process_is_killed_in_bounded_time(service_plan: Plan, output: Output, terminal: io.StringIO) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan("stubborn", stop_seconds=0.3), output)
        process.start()
        await process.wait_ready(60)
        await asyncio.wait_for(process.stop(), 30)
        assert process.pid is None

    asyncio.run(scenario())
    assert "service did not stop within 0.3 s and is killed" in terminal.getvalue()


def test_kill_does_not_wait_for_the_stop_in_progress(service_plan: Plan, output: Output) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan("stubborn", stop_seconds=60), output)
        process.start()
        await process.wait_ready(60)
        stopping = asyncio.create_task(process.stop())
        await asyncio.sleep(0)
        process.kill()
        await asyncio.wait_for(stopping, 30)

    asyncio.run(scenario())


def test_what_a_process_started_ends_with_it(
    service_plan: Plan, output: Output, terminal: io.StringIO, until_async: Callable[..., object]
) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan("parent"), output)
        process.start()
        await process.wait_ready(60)
        await process.stop()
        child = int(terminal.getvalue().split("child ")[1].split()[0])
        await until_async(lambda: not _runs(child))

    asyncio.run(scenario())


def test_stop_before_start_and_stop_twice_do_nothing(service_plan: Plan, output: Output) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan(), output)
        await process.stop()
        process = ManagedProcess(service_plan(), output)
        process.start()
        await process.stop()
        await process.stop()
        assert process.pid is None

    asyncio.run(scenario())


def test_stop_between_two_starts_is_immediate(
    service_plan: Plan, output: Output, terminal: io.StringIO, until_async: Callable[..., object]
) -> None:
    async def scenario() -> None:
        process = ManagedProcess(service_plan("exit1", first_delay_seconds=30), output)
        process.start()
        await until_async(lambda: "started again" in terminal.getvalue())
        await asyncio.wait_for(process.stop(), 10)

    asyncio.run(scenario())


def test_command_that_is_not_there_is_said(service_plan: Plan, output: Output, terminal: io.StringIO) -> None:
    async def scenario() -> None:
        plan = ProcessPlan(name="gone", command=("/no/such/python",), url="http://127.0.0.1:1", environment={})
        process = ManagedProcess(plan, output)
        process.start()
        with pytest.raises(StartFailed):
            await process.wait_ready(0.3)
        await process.stop()

    asyncio.run(scenario())
    assert "gone cannot be started" in terminal.getvalue()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_delay_doubles_up_to_thirty_seconds() -> None:
    backoff = RestartBackoff(0.5, 30)
    assert [backoff.after(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_health_starts_over() -> None:
    backoff = RestartBackoff(0.5, 30)
    assert [backoff.after(1), backoff.after(1), backoff.after(61)] == [0.5, 1, 0.5]


def test_a_process_that_was_ready_starts_over() -> None:
    backoff = RestartBackoff(0.5, 30)
    delays = [backoff.after(3, ready) for ready in (0, 0, 2.5, 0.1)]
    assert delays == [0.5, 1, 0.5, 1]


def test_the_longest_delay_can_be_shorter() -> None:
    backoff = RestartBackoff(0.5, 5)
    assert [backoff.after(0) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]


def test_a_process_that_always_dies_never_overflows() -> None:
    backoff = RestartBackoff(0.5, 30)
    assert {backoff.after(0) for _ in range(3000)} <= {0.5, 1, 2, 4, 8, 16, 30}


def test_what_is_still_loading_is_no_reason() -> None:
    answer = '{"ready": false, "reasons": {"worker processes of ocr": "no tool", "worker processes of big": "loading"}}'
    assert parse_reasons(answer) == {"ocr": "no tool"}


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"reasons": 3}', "<html>"])
def test_an_answer_of_somebody_else_has_no_reasons(answer: str) -> None:
    assert parse_reasons(answer) == {}


def test_parts_with_the_same_reason_share_a_sentence() -> None:
    reasons = {"ocr": "no tool", "size": "no disk", "describe": "no tool"}
    assert explained(reasons, "images") == [
        "size of images is not ready: no disk",
        "describe, ocr of images are not ready: no tool",
    ]
    assert explained({"ocr": "no tool"}) == ["ocr is not ready: no tool"]


def test_chunks_become_whole_lines() -> None:
    splitter = LineSplitter()
    assert splitter.feed("a\nbé".encode()[:-1]) == ["a"]
    assert splitter.feed("é".encode()[1:] + b"c\r\nd") == ["béc"]
    assert splitter.end() == ["d"]
    assert splitter.end() == []


def test_line_without_end_is_cut() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"x" * (LineSplitter.LIMIT + 1)) == ["x" * (LineSplitter.LIMIT + 1)]
    assert splitter.feed(b"y\n") == ["y"]
