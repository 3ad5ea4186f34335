"""The controller and the real runner: `python -m runnerlib` in a process of its own, killed and misused."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest
from servers import processes

from runnerlib.contract import (
    HEADER_BOOT,
    AlgorithmDescription,
    FailureCode,
    RunnerLevel,
    RunnerView,
    TaskState,
)

ADAPTER = """
import os
import time

OPTIONS = {
    "forever": {"timeout_seconds": 1, "retries": 1},
    "sleep": {"timeout_seconds": 60},
}


def run_double(number: int) -> int:
    return number * 2


def batch_square(number: list[int]) -> list[int]:
    if 13 in number:
        os._exit(1)
    return [each * each for each in number]


def run_sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def run_forever() -> None:
    while True:
        pass


def run_die() -> None:
    os._exit(1)
"""


class RealRunner:
    def __init__(self, folder):
        self.folder = folder
        self.port = 0
        self.process = None
        self.view = None
        self.descriptions = []

    async def start(self, session):
        (self.folder / "runner_adapter.py").write_text(ADAPTER)
        self.port = self.port or processes.free_port()
        environment = {**os.environ, "PORT": str(self.port), "LOG_LEVEL": "WARNING", "GRACE_SECONDS": "1"}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runnerlib", cwd=self.folder, env=environment
        )
        url = f"http://127.0.0.1:{self.port}"
        async with asyncio.timeout(40):
            while not await is_ready(session, url):
                await asyncio.sleep(0.1)
        async with session.get(f"{url}/schemas") as answer:
            boot = answer.headers[HEADER_BOOT]
            self.descriptions = [AlgorithmDescription.model_validate(each) for each in await answer.json()]
        self.view = RunnerView(
            id="real",
            name="real",
            host=url,
            boot=boot,
            level=RunnerLevel.FULL,
            algorithms=[each.name for each in self.descriptions],
        )

    def tell(self, world):
        world.source.publish([self.view], {each.name: each.limits for each in self.descriptions})

    async def kill(self):
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


async def is_ready(session, url):
    try:
        async with session.get(f"{url}/healthz/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@pytest.fixture
def real(worlds, tmp_path):
    """``async with real() as (world, runner, session)``"""

    @asynccontextmanager
    async def opened():
        async with worlds() as world, aiohttp.ClientSession() as session:
            runner = RealRunner(tmp_path)
            try:
                await runner.start(session)
                runner.tell(world)
                await world.start_controller()
                yield world, runner, session
            finally:
                await world.stop_controller()
                await runner.kill()

    return opened


def test_tasks_of_several_algorithms_end_while_some_hang_and_die(real, go):
    async def scenario():
        async with real() as (world, _, _):
            await world.send(("endless", {}), algorithm="forever")
            await world.send(("dead", {}), algorithm="die")
            await world.send(*((f"d{n}", {"number": n}) for n in range(300)), algorithm="double")
            await world.send(*((f"s{n}", {"number": n}) for n in range(20)), algorithm="square")
            await world.send(("bad", {"numbre": 1}), algorithm="double")
            for n in range(300):
                assert (await world.ended(f"d{n}")).result == b"%d" % (2 * n)
            bad = await world.ended("bad")
            assert bad.error_code is FailureCode.INVALID_PAYLOAD
            for n in range(20):
                row = await world.ended(f"s{n}", 30)
                if n == 13:
                    assert (row.error_code, row.attempt) == (FailureCode.RUNNER_LOST, 2)
                else:
                    assert (row.result, row.attempt, row.history) == (b"%d" % (n * n), 1, ())
            dead = await world.ended("dead", 30)
            assert (dead.error_code, dead.attempt) == (FailureCode.RUNNER_LOST, 2)
            endless = await world.ended("endless", 30)
            assert (endless.error_code, endless.attempt) == (FailureCode.TIMEOUT, 2)

    go(scenario())


def test_killed_runner_costs_one_attempt_and_its_next_boot_goes_on(real, go):
    async def scenario():
        async with real() as (world, runner, session):
            await world.send(("t1", {"seconds": 2}), algorithm="sleep")
            await world.until_row("t1", lambda row: row.placement)
            await runner.kill()
            await runner.start(session)
            runner.tell(world)
            row = await world.ended("t1", 20)
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 2)
            assert [entry.code for entry in row.history] == [FailureCode.RUNNER_LOST]

    go(scenario())


def test_running_task_is_cancelled_in_its_process(real, go):
    async def scenario():
        async with real() as (world, _, _):
            await world.send(("t1", {"seconds": 40}), algorithm="sleep")
            await world.until_row("t1", lambda row: row.placement)
            await world.store.cancel("t1")
            assert (await world.ended("t1", 15)).state is TaskState.CANCELLED

    go(scenario())


def test_controller_that_is_replaced_attaches_to_the_real_run(real, go):
    async def scenario():
        async with real() as (world, _, _):
            await world.send(("t1", {"seconds": 3}), algorithm="sleep")
            await world.until_row("t1", lambda row: row.placement)
            await world.stop_controller()
            await world.start_controller()
            row = await world.ended("t1")
            assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())
            assert row.finished_at - row.created_at < 4.5

    go(scenario())


def test_runner_that_is_stopped_hands_its_run_back_uncounted(real, go):
    async def scenario():
        async with real() as (world, runner, session):
            await world.send(("t1", {"seconds": 4}), algorithm="sleep")
            await world.until_row("t1", lambda row: row.placement)
            runner.process.terminate()
            world.tell_none(known=["sleep"])
            await asyncio.wait_for(runner.process.wait(), 15)
            await world.until_row("t1", lambda row: row.placement is None or not row.placement.boot)
            await runner.start(session)
            runner.tell(world)
            row = await world.ended("t1")
            assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())

    go(scenario())
