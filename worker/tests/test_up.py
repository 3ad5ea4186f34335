"""The whole environment, with small stand-ins for its services: order, ports, broken runners, signals."""

import asyncio
import errno
import io
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from worker.errors import AlreadyRunning, PortTaken, StartFailed
from worker.output import Output
from worker.plan import Layout
from worker.ports import is_free
from worker.runners import RunnerFolder, Selection
from worker.state_file import EnvironmentState, StateFile, read_state
from worker.up import Environment, Interrupted, run_environment
from worker.versions import Interpreters

Until = Callable[..., object]
EnvironmentOf = Callable[..., Environment]


@pytest.fixture
def environment_of(output: Output, our_python: Interpreters) -> EnvironmentOf:
    """With these runners alone, whose folders are there."""

    async def always(discovery: str, host: str, boot: str) -> bool:
        return True

    def make(layout: Layout, runners: Sequence[RunnerFolder] = ()) -> Environment:
        selection = Selection(layout.data.parent / "runners", frozenset(runner.name for runner in runners), {})
        return Environment(layout, selection, our_python, output, registered=always)

    return make


def test_core_starts_before_the_runners_and_stops_after_them(
    layout: Layout,
    make_runner: Callable[..., RunnerFolder],
    environment_of: EnvironmentOf,
    terminal: io.StringIO,
    until_async: Until,
) -> None:
    async def scenario() -> None:
        async with environment_of(layout, [make_runner("text")]):
            state = read_state(layout.data)
            assert state.pid == os.getpid()
            assert state.runners["text"].processes[0].url == layout.url(layout.settings.runner_ports_start)
            await until_async(lambda: "text is ready" in terminal.getvalue())

    asyncio.run(scenario())
    lines = [line for line in terminal.getvalue().splitlines() if "hello" in line or "goodbye" in line]
    assert [line.split()[0] for line in lines] == ["discovery", "core", "text", "text", "core", "discovery"]
    assert not (layout.data / "environment.json").exists()


def test_controller_and_gateway_of_a_broker_start_before_the_runners_and_stop_after_them(
    layout: Layout,
    make_runner: Callable[..., RunnerFolder],
    environment_of: EnvironmentOf,
    terminal: io.StringIO,
    until_async: Until,
) -> None:
    async def scenario() -> None:
        with_broker = replace(layout, queue_url="amqp://me:hush@broker/")
        async with environment_of(with_broker, [make_runner("text")]):
            assert "hush" not in (layout.data / "environment.json").read_text()
            await until_async(lambda: "text is ready" in terminal.getvalue())

    asyncio.run(scenario())
    lines = [line for line in terminal.getvalue().splitlines() if "hello" in line or "goodbye" in line]
    started = ["discovery", "controller", "gateway", "text"]
    assert [line.split()[0] for line in lines] == [*started, "text", "controller", "gateway", "discovery"]
    assert "hush" not in terminal.getvalue()


def test_runner_with_wrong_requirements_is_left_out_and_the_others_go_on(
    layout: Layout, make_runner: Callable[..., RunnerFolder], environment_of: EnvironmentOf, terminal: io.StringIO
) -> None:
    async def scenario() -> None:
        runners = [make_runner("text"), make_runner("wrong", position=1)]
        async with environment_of(layout, runners) as environment:
            assert [runner.plan.name for runner in environment.runners.processes] == ["text"]
            assert list(environment.runners.broken) == ["wrong"]

    asyncio.run(scenario())
    assert "wrong is left out: requirements.txt could not be installed:" in terminal.getvalue()


def test_state_that_cannot_be_written_stops_nothing(
    layout: Layout,
    make_runner: Callable[..., RunnerFolder],
    environment_of: EnvironmentOf,
    terminal: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(file: StateFile, state: EnvironmentState) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario() -> None:
        async with environment_of(layout, [make_runner("text")]) as environment:
            assert [process.plan.name for process in environment.runners.processes] == ["text"]

    monkeypatch.setattr(StateFile, "write", write)
    asyncio.run(scenario())
    assert "worker status shows an older state" in terminal.getvalue()
    assert terminal.getvalue().count("goodbye") >= 2


def test_taken_port_is_told_before_anything_starts(
    layout: Layout, make_runner: Callable[..., RunnerFolder], environment_of: EnvironmentOf, terminal: io.StringIO
) -> None:
    async def scenario() -> None:
        port = layout.settings.runner_ports_start
        with (
            socket.create_server(("127.0.0.1", port)),
            pytest.raises(PortTaken, match=f"runner text needs port {port}.*RUNNER_PORTS_START"),
        ):
            async with environment_of(layout, [make_runner("text")]):
                pass

    asyncio.run(scenario())
    assert "hello" not in terminal.getvalue()


def test_ports_of_a_worker_that_was_just_killed_are_waited_for(
    layout: Layout, environment_of: EnvironmentOf, terminal: io.StringIO, until_async: Until
) -> None:
    async def scenario() -> None:
        (core,) = layout.services()
        leftover = await asyncio.create_subprocess_exec(*core.command, env=core.environment)
        await until_async(lambda: not is_free("127.0.0.1", layout.settings.gateway_port))
        asyncio.get_running_loop().call_later(0.5, leftover.terminate)
        async with environment_of(layout):
            pass
        await leftover.wait()

    asyncio.run(scenario())
    assert terminal.getvalue().count("goodbye") == 2


def test_core_that_does_not_start_stops_everything(
    layout: Layout, make_runner: Callable[..., RunnerFolder], environment_of: EnvironmentOf, terminal: io.StringIO
) -> None:
    async def scenario() -> None:
        broken = replace(layout, core_mode="exit1")
        with pytest.raises(StartFailed, match="core does not stay alive"):
            async with environment_of(broken, [make_runner("text")]):
                pass

    asyncio.run(scenario())
    assert "discovery  │ goodbye" in terminal.getvalue()


def test_second_worker_on_the_same_data_is_refused(
    layout: Layout, make_runner: Callable[..., RunnerFolder], environment_of: EnvironmentOf
) -> None:
    async def scenario() -> None:
        async with environment_of(layout):
            with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
                async with environment_of(layout):
                    pass
            assert read_state(layout.data).pid == os.getpid()

    asyncio.run(scenario())


def test_one_interrupt_stops_cleanly(
    layout: Layout, output: Output, environment_of: EnvironmentOf, terminal: io.StringIO
) -> None:
    async def body(environment: Environment) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(Interrupted) as stopped:
        asyncio.run(run_environment(environment_of(layout), body, output))
    assert stopped.value.exit_code == 0
    assert terminal.getvalue().count("goodbye") == 2


def test_two_interrupts_kill(
    layout: Layout,
    output: Output,
    environment_of: EnvironmentOf,
    make_runner: Callable[..., RunnerFolder],
    terminal: io.StringIO,
) -> None:
    async def body(environment: Environment) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    stubborn = replace(layout, mode="stubborn", core_mode="stubborn")
    environment = environment_of(stubborn, [make_runner("text")])
    with pytest.raises(Interrupted) as stopped:
        asyncio.run(asyncio.wait_for(run_environment(environment, body, output), 20))
    assert stopped.value.exit_code == 130
    assert "did not stop" not in terminal.getvalue()


def test_interrupt_during_the_start_undoes_it(
    layout: Layout, output: Output, environment_of: EnvironmentOf, terminal: io.StringIO
) -> None:
    async def body(environment: Environment) -> None:
        pytest.fail("the start was interrupted")

    async def scenario() -> None:
        asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGINT)
        environment = environment_of(replace(layout, core_mode="endless start"))
        await run_environment(environment, body, output)

    with pytest.raises(Interrupted):
        asyncio.run(scenario())
    assert not (layout.data / "environment.json").exists()
