"""The parts of a new version that take long, and edits meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from worker.build_progress import BuildProgress
from worker.edition_maker import EditionMaker, RunnerTools
from worker.environments import Report
from worker.errors import EnvironmentBroken
from worker.output import Output
from worker.plan import Layout
from worker.port_pool import PortPool
from worker.runners import RunnerFolder

MakeRunner = Callable[..., RunnerFolder]


@dataclass
class SlowPip:
    """Takes until `done`; refuses what is called wrong."""

    done: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def path(self, runner: RunnerFolder) -> Path:
        return Path(runner.requirements.read_text())

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        requirements = str(self.path(runner))
        self.begun.append(requirements)
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled.append(requirements)
            raise
        if requirements == "wrong":
            raise EnvironmentBroken("no such package")
        return Path(requirements)

    def is_complete(self, runner: RunnerFolder) -> bool:
        return False

    def remove_older(self, name: str, pythons: list[Path]) -> None:
        raise AssertionError("not asked for here")


@pytest.fixture
def maker_of(layout: Layout, output: Output) -> Callable[[SlowPip], EditionMaker]:
    async def always(host: str, boot: str) -> bool:
        return True

    def make(pip: SlowPip) -> EditionMaker:
        ports, progress = PortPool(1, lambda port: True), BuildProgress(output)
        return EditionMaker(1, RunnerTools(layout, pip, ports, output, progress, always, lambda: None))

    return make


def test_edit_that_leaves_the_requirements_alone_does_not_start_the_install_over(
    maker_of: Callable[[SlowPip], EditionMaker], make_runner: MakeRunner, until_async: Callable[..., object]
) -> None:
    async def scenario() -> None:
        pip = SlowPip()
        maker, runner = maker_of(pip), make_runner("text", requirements="torch")
        first = asyncio.create_task(maker.python(runner))
        await until_async(lambda: pip.begun)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(maker.python(runner))
        await asyncio.sleep(0)
        assert maker.is_installing
        pip.done.set()
        assert await second == Path("torch")
        assert (pip.begun, pip.cancelled) == (["torch"], [])

    asyncio.run(scenario())


def test_other_requirements_end_the_install_and_stop_ends_it_too(
    maker_of: Callable[[SlowPip], EditionMaker], make_runner: MakeRunner, until_async: Callable[..., object]
) -> None:
    async def scenario() -> None:
        pip = SlowPip()
        maker = maker_of(pip)
        waiting = []
        for requirements in ("torch", "numpy"):
            waiting.append(asyncio.create_task(maker.python(make_runner("text", requirements=requirements))))
            await until_async(lambda requirements=requirements: requirements in pip.begun)
        assert pip.cancelled == ["torch"]
        await maker.stop()
        assert pip.cancelled == ["torch", "numpy"]
        await asyncio.wait(waiting)

    asyncio.run(scenario())


def test_failed_install_is_tried_again_when_it_is_asked_for_again(
    maker_of: Callable[[SlowPip], EditionMaker], make_runner: MakeRunner
) -> None:
    async def scenario() -> None:
        pip = SlowPip()
        pip.done.set()
        maker, runner = maker_of(pip), make_runner("text", requirements="wrong")
        for _ in range(2):
            with pytest.raises(EnvironmentBroken, match="no such package"):
                await maker.python(runner)
        assert pip.begun == ["wrong", "wrong"]

    asyncio.run(scenario())
