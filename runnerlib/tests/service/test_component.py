import asyncio
from contextlib import AsyncExitStack

import pytest
from component_check import check_component

from runnerlib.service.component import Component
from runnerlib.service.lifecycle import background


class Sample(Component):
    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    async def _start(self, stack: AsyncExitStack) -> None:
        background(stack, asyncio.Event().wait(), "waits")  # type: ignore[arg-type]
        if self.fails:
            raise ValueError("half-way")


class Leaking(Component):
    async def _start(self, stack: AsyncExitStack) -> None:
        self.task = asyncio.ensure_future(asyncio.Event().wait())


def test_a_component_keeps_the_lifecycle() -> None:
    asyncio.run(check_component(Sample, lambda: Sample(fails=True)))


def test_the_check_finds_what_is_left_behind() -> None:
    with pytest.raises(AssertionError, match="left behind"):
        asyncio.run(check_component(Leaking))
