"""The whole environment, with small stand-ins for its services: order, ports, broken runners, signals."""

import asyncio
import io
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from worker.environments import Report
from worker.errors import AlreadyRunning, EnvironmentBroken, PortTaken, StartFailed
from worker.interrupt import Interrupted, run_environment
from worker.output import Output
from worker.plan import Layout
from worker.ports import is_free
from worker.processes import ProcessPlan
from worker.runners import RunnerFolder
from worker.selection import Selection
from worker.settings import WorkerSettings
from worker.state_file import read_state
from worker.up import Environment

Until = Callable[..., object]


class OurPython:
    """Saves the making of a virtual environment; knows one runner whose requirements are wrong."""

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        if runner.name == "wrong":
            raise EnvironmentBroken("requirements.txt could not be installed:\n    no such package")
        return Path(sys.executable)

    def path(self, runner: RunnerFolder) -> Path:
        return Path(sys.executable)

    def remove_older(self, name: str, pythons: list[Path]) -> None:
        return None


@dataclass(frozen=True)
class StandIns(Layout):
    """The real layout with small services in place of the real ones."""

    script: Path = Path()
    mode: str = "polite"
    core_mode: str = "polite"

    def discovery(self) -> ProcessPlan:
        return self._stand_in(super().discovery(), self.mode)

    def core(self) -> ProcessPlan:
        return replace(self._stand_in(super().core(), self.core_mode), first_delay_seconds=0.01)

    def controller(self) -> ProcessPlan:
        return self._stand_in(super().controller(), self.mode)

    def gateway(self) -> ProcessPlan:
        return self._stand_in(super().gateway(), self.mode)

    def runner(self, *words: Any) -> ProcessPlan:
        return self._stand_in(super().runner(*words), self.mode)

    def _stand_in(self, plan: ProcessPlan, mode: str) -> ProcessPlan:
        return replace(plan, command=(sys.executable, str(self.script), mode))


@pytest.fixture
def layout(
    tmp_path: Path, service_plan: Callable[..., ProcessPlan], free_port: Callable[[], int], marked_processes: object
) -> StandIns:
    settings = WorkerSettings(
        discovery_port=free_port(),
        gateway_port=free_port(),
        controller_port=free_port(),
        runner_ports_start=free_port(),
        grace_seconds=5,
    )
    script = Path(service_plan().command[1])
    return StandIns(settings, tmp_path / "data", "pretty", dict(os.environ), script=script)


def _environment(layout: Layout, runners: list[RunnerFolder], output: Output) -> Environment:
    """With these runners alone; `runners` has made their folders."""
    selection = Selection(layout.data.parent / "runners", frozenset(runner.name for runner in runners), {})
    return Environment(layout, selection, OurPython(), output, registered=_always)


async def _always(discovery: str, host: str, boot: str) -> bool:
    return True


def test_core_starts_before_the_runners_and_stops_after_them(
    layout: StandIns,
    make_runner: Callable[..., RunnerFolder],
    output: Output,
    terminal: io.StringIO,
    until_async: Until,
) -> None:
    async def scenario() -> None:
        async with _environment(layout, [make_runner("text")], output):
            state = read_state(layout.data)
            assert state.pid == os.getpid()
            assert state.runners["text"].processes[0].url == layout.url(layout.settings.runner_ports_start)
            await until_async(lambda: "text is ready" in terminal.getvalue())

    asyncio.run(scenario())
    lines = [line for line in terminal.getvalue().splitlines() if "hello" in line or "goodbye" in line]
    assert [line.split()[0] for line in lines] == ["discovery", "core", "text", "text", "core", "discovery"]
    assert not (layout.data / "environment.json").exists()


def test_controller_and_gateway_of_a_broker_start_before_the_runners_and_stop_after_them(
    layout: StandIns,
    make_runner: Callable[..., RunnerFolder],
    output: Output,
    terminal: io.StringIO,
    until_async: Until,
) -> None:
    async def scenario() -> None:
        with_broker = replace(layout, queue_url="amqp://me:hush@broker/")
        async with _environment(with_broker, [make_runner("text")], output):
            assert "hush" not in (layout.data / "environment.json").read_text()
            await until_async(lambda: "text is ready" in terminal.getvalue())

    asyncio.run(scenario())
    lines = [line for line in terminal.getvalue().splitlines() if "hello" in line or "goodbye" in line]
    started = ["discovery", "controller", "gateway", "text"]
    assert [line.split()[0] for line in lines] == [*started, "text", "controller", "gateway", "discovery"]
    assert "hush" not in terminal.getvalue()


def test_runner_with_wrong_requirements_is_left_out_and_the_others_go_on(
    layout: StandIns, make_runner: Callable[..., RunnerFolder], output: Output, terminal: io.StringIO
) -> None:
    async def scenario() -> None:
        runners = [make_runner("text"), make_runner("wrong", position=1)]
        async with _environment(layout, runners, output) as environment:
            assert [runner.plan.name for runner in environment.runners] == ["text"]
            assert list(environment.broken) == ["wrong"]

    asyncio.run(scenario())
    assert "wrong is left out: requirements.txt could not be installed:" in terminal.getvalue()


def test_taken_port_is_told_before_anything_starts(
    layout: StandIns, make_runner: Callable[..., RunnerFolder], output: Output, terminal: io.StringIO
) -> None:
    async def scenario() -> None:
        port = layout.settings.runner_ports_start
        with (
            socket.create_server(("127.0.0.1", port)),
            pytest.raises(PortTaken, match=f"runner text needs port {port}.*RUNNER_PORTS_START"),
        ):
            async with _environment(layout, [make_runner("text")], output):
                pass

    asyncio.run(scenario())
    assert "hello" not in terminal.getvalue()


def test_ports_of_a_worker_that_was_just_killed_are_waited_for(
    layout: StandIns, output: Output, terminal: io.StringIO, until_async: Until
) -> None:
    async def scenario() -> None:
        leftover = await asyncio.create_subprocess_exec(*layout.core().command, env=layout.core().environment)
        await until_async(lambda: not is_free("127.0.0.1", layout.settings.gateway_port))
        asyncio.get_running_loop().call_later(0.5, leftover.terminate)
        async with _environment(layout, [], output):
            pass
        await leftover.wait()

    asyncio.run(scenario())
    assert terminal.getvalue().count("goodbye") == 2


def test_core_that_does_not_start_stops_everything(
    layout: StandIns, make_runner: Callable[..., RunnerFolder], output: Output, terminal: io.StringIO
) -> None:
    async def scenario() -> None:
        broken = replace(layout, core_mode="exit1")
        with pytest.raises(StartFailed, match="core does not stay alive"):
            async with _environment(broken, [make_runner("text")], output):
                pass

    asyncio.run(scenario())
    assert "discovery  │ goodbye" in terminal.getvalue()


def test_second_worker_on_the_same_data_is_refused(
    layout: StandIns, make_runner: Callable[..., RunnerFolder], output: Output
) -> None:
    async def scenario() -> None:
        async with _environment(layout, [], output):
            with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
                async with _environment(layout, [], output):
                    pass
            assert read_state(layout.data).pid == os.getpid()

    asyncio.run(scenario())


def test_one_interrupt_stops_cleanly(layout: StandIns, output: Output, terminal: io.StringIO) -> None:
    async def body(environment: Environment) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(Interrupted) as stopped:
        asyncio.run(run_environment(_environment(layout, [], output), body, output))
    assert stopped.value.exit_code == 0
    assert terminal.getvalue().count("goodbye") == 2


def test_two_interrupts_kill(
    layout: StandIns, output: Output, make_runner: Callable[..., RunnerFolder], terminal: io.StringIO
) -> None:
    async def body(environment: Environment) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    stubborn = replace(layout, mode="stubborn", core_mode="stubborn")
    environment = _environment(stubborn, [make_runner("text")], output)
    with pytest.raises(Interrupted) as stopped:
        asyncio.run(asyncio.wait_for(run_environment(environment, body, output), 20))
    assert stopped.value.exit_code == 130
    assert "did not stop" not in terminal.getvalue()


def test_interrupt_during_the_start_undoes_it(layout: StandIns, output: Output, terminal: io.StringIO) -> None:
    async def body(environment: Environment) -> None:
        pytest.fail("the start was interrupted")

    async def scenario() -> None:
        asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGINT)
        environment = _environment(replace(layout, core_mode="endless start"), [], output)
        await run_environment(environment, body, output)

    with pytest.raises(Interrupted):
        asyncio.run(scenario())
    assert not (layout.data / "environment.json").exists()
