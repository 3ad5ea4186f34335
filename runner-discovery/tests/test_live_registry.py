import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from component_check import check_component

from runner_discovery.live_registry import LiveRegistry
from runner_discovery.snapshot_file import SnapshotFile
from runnerlib.contract import RunnerRegistration
from runnerlib.service.lifecycle import StartupError

Make = Callable[..., dict[str, Any]]
Eventually = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> SnapshotFile:
    return SnapshotFile(tmp_path / "discovery.json")


@pytest.fixture
def put(registration: Make) -> Callable[..., None]:
    def register(live: LiveRegistry, runner_id: str, **parts: Any) -> None:
        live.registry.register(runner_id, RunnerRegistration.model_validate(registration(**parts)))
        live.announce()

    return register


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """All that was logged so far."""
    parts: list[str] = []

    def read() -> str:
        parts.extend(capsys.readouterr())
        return "".join(parts)

    return read


def test_the_live_registry_keeps_the_lifecycle(file: SnapshotFile, tmp_path: Path) -> None:
    folder = SnapshotFile(tmp_path)
    asyncio.run(
        check_component(lambda: LiveRegistry(file, lease_seconds=30), lambda: LiveRegistry(folder, lease_seconds=30))
    )


def test_a_snapshot_that_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with LiveRegistry(SnapshotFile(tmp_path), lease_seconds=30):
            raise AssertionError

    with pytest.raises(StartupError, match="set SNAPSHOT_PATH"):
        asyncio.run(scenario())


def test_who_waits_is_woken_by_a_change(file: SnapshotFile, put: Callable[..., None]) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=30) as live:
            waiters = [asyncio.ensure_future(live.wait_beyond(live.registry.epoch, 0, 30)) for _ in range(1000)]
            await asyncio.sleep(0)
            live.announce()
            await asyncio.sleep(0.02)
            assert not any(waiter.done() for waiter in waiters)
            put(live, "a", upper=1)
            await asyncio.wait_for(asyncio.gather(*waiters), 10)

    asyncio.run(scenario())


@pytest.mark.serial
def test_nobody_waits_for_what_is_already_there(file: SnapshotFile, put: Callable[..., None]) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=30) as live:
            put(live, "a", upper=1)
            await asyncio.wait_for(live.wait_beyond(live.registry.epoch, 0, 30), 1)
            await asyncio.wait_for(live.wait_beyond("another epoch", 1, 30), 1)
            began = time.monotonic()
            await live.wait_beyond(None, 1, 0.1)
            assert 0.09 < time.monotonic() - began < 1

    asyncio.run(scenario())


def test_many_changes_at_once_are_few_answers(file: SnapshotFile, put: Callable[..., None]) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=30) as live:
            answers = 0
            index = 0

            async def follow() -> None:
                nonlocal answers, index
                while index < 100:
                    await live.wait_beyond(live.registry.epoch, index, 30)
                    index = live.registry.index
                    answers += 1

            following = asyncio.ensure_future(follow())
            for number in range(100):
                put(live, f"r{number}", upper=1, host=f"h:{number}")
                await asyncio.sleep(0)
            await asyncio.wait_for(following, 30)
            assert answers < 20

    asyncio.run(scenario())


def test_a_stop_releases_who_waits(file: SnapshotFile) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=30) as live:
            waiter = asyncio.ensure_future(live.wait_beyond(None, 0, 30))
            await asyncio.sleep(0)
            live.release()
            await asyncio.wait_for(waiter, 10)
            await asyncio.wait_for(live.wait_beyond(None, 0, 30), 10)

    asyncio.run(scenario())


@pytest.mark.serial
def test_a_lease_runs_out_without_any_request(file: SnapshotFile, put: Callable[..., None]) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=0.3) as live:
            put(live, "a", upper=1)
            began = time.monotonic()
            await asyncio.wait_for(live.wait_beyond(None, 1, 30), 5)
            assert 0.25 < time.monotonic() - began < 2
            assert live.registry.catalogue().runners == {}
            put(live, "a", upper=1)
            await asyncio.wait_for(live.wait_beyond(None, 3, 30), 5)

    asyncio.run(scenario())


def test_a_process_that_stood_still_does_not_drop_its_runners(
    file: SnapshotFile, put: Callable[..., None], eventually: Eventually, said: Callable[[], str]
) -> None:
    class Clock:
        jump = 0.0

        def __call__(self) -> float:
            return time.monotonic() + self.jump

    async def scenario() -> None:
        clock = Clock()
        async with LiveRegistry(file, lease_seconds=0.3, clock=clock) as live:
            put(live, "a", upper=1)
            clock.jump = 60
            await eventually(lambda: "stood still" in said())
            assert list(live.registry.catalogue().runners) == ["a"]

    asyncio.run(scenario())


def test_changes_are_written_and_remembered(
    file: SnapshotFile, put: Callable[..., None], eventually: Eventually
) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=30) as live:
            put(live, "a", upper=1)
            await eventually(file.path.exists)
            put(live, "b", upper=1, host="h:2")
            epoch = live.registry.epoch
        async with LiveRegistry(file, lease_seconds=30) as again:
            assert sorted(again.registry.catalogue().runners) == ["a", "b"]
            assert again.registry.epoch != epoch

    asyncio.run(scenario())


def test_renewals_write_nothing(file: SnapshotFile, put: Callable[..., None], eventually: Eventually) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=30) as live:
            put(live, "a", upper=1)
            await eventually(file.path.exists)
            written = file.path.stat().st_mtime_ns
            for _ in range(10):
                put(live, "a", upper=1)
            await asyncio.sleep(0.4)
        assert file.path.stat().st_mtime_ns == written

    asyncio.run(scenario())


def test_a_full_disk_stops_nothing(
    tmp_path: Path, put: Callable[..., None], eventually: Eventually, said: Callable[[], str]
) -> None:
    (tmp_path / "file").write_text("")
    file = SnapshotFile(tmp_path / "file" / "discovery.json")

    async def scenario() -> None:
        async with LiveRegistry(SnapshotFile(tmp_path / "ok.json"), lease_seconds=30) as live:
            live._file = file
            put(live, "a", upper=1)
            await eventually(lambda: "cannot be written" in said())
            assert list(live.registry.catalogue().runners) == ["a"]

    asyncio.run(scenario())


def test_a_conflict_is_told_once(file: SnapshotFile, put: Callable[..., None], said: Callable[[], str]) -> None:
    async def scenario() -> None:
        async with LiveRegistry(file, lease_seconds=30) as live:
            put(live, "old", upper=1)
            for number in range(3):
                put(live, f"new{number}", upper=2, host=f"h:{number}")
                put(live, "old", upper=1)

    asyncio.run(scenario())
    told = [line for line in said().splitlines() if "other schemas" in line]
    assert len(told) == 1
    assert "new0" in told[0] and "old" in told[0]
