"""The parts of a new version that take long, and edits meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from worker.errors import EnvironmentBroken
from worker.output import InstallProgress, Output, Report
from worker.plan import Layout
from worker.ports import PortPool
from worker.runner_code import version_of
from worker.runners import RunnerFolder
from worker.versions import RunnerContext, VersionBuilder

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
def builder_of(layout: Layout, output: Output) -> Callable[[SlowPip], VersionBuilder]:
    async def always(host: str, boot: str) -> bool:
        return True

    def make(pip: SlowPip) -> VersionBuilder:
        ports, progress = PortPool(1, lambda port: True), InstallProgress(output)
        context = RunnerContext(layout, pip, ports, output, progress, always, lambda: None)
        return VersionBuilder(1, context, version_of)

    return make


def test_edit_that_leaves_the_requirements_alone_does_not_start_the_install_over(
    builder_of: Callable[[SlowPip], VersionBuilder], make_runner: MakeRunner, until_async: Callable[..., object]
) -> None:
    async def scenario() -> None:
        pip = SlowPip()
        builder, runner = builder_of(pip), make_runner("text", requirements="torch")
        first = asyncio.create_task(builder.python(runner))
        await until_async(lambda: pip.begun)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(builder.python(runner))
        await asyncio.sleep(0)
        assert builder.is_installing
        pip.done.set()
        assert await second == Path("torch")
        assert (pip.begun, pip.cancelled) == (["torch"], [])

    asyncio.run(scenario())


def test_other_requirements_end_the_install_and_stop_ends_it_too(
    builder_of: Callable[[SlowPip], VersionBuilder], make_runner: MakeRunner, until_async: Callable[..., object]
) -> None:
    async def scenario() -> None:
        pip = SlowPip()
        builder = builder_of(pip)
        waiting = []
        for requirements in ("torch", "numpy"):
            waiting.append(asyncio.create_task(builder.python(make_runner("text", requirements=requirements))))
            await until_async(lambda requirements=requirements: requirements in pip.begun)
        assert pip.cancelled == ["torch"]
        await builder.stop()
        assert pip.cancelled == ["torch", "numpy"]
        await asyncio.wait(waiting)

    asyncio.run(scenario())


def test_failed_install_is_tried_again_when_it_is_asked_for_again(
    builder_of: Callable[[SlowPip], VersionBuilder], make_runner: MakeRunner
) -> None:
    async def scenario() -> None:
        pip = SlowPip()
        pip.done.set()
        builder, runner = builder_of(pip), make_runner("text", requirements="wrong")
        for _ in range(2):
            with pytest.raises(EnvironmentBroken, match="no such package"):
                await builder.python(runner)
        assert pip.begun == ["wrong", "wrong"]

    asyncio.run(scenario())
