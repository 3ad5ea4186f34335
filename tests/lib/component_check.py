"""For the tests of components: one check of how they start and stop."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

Make = Callable[[], AbstractAsyncContextManager[Any]]


async def check_component(make: Make, make_failing: Make | None = None) -> None:
    """Asserts that a component keeps the lifecycle's promises.

    Stopping before the start and stopping twice do nothing; starting twice is refused; nothing is left running;
    the next one can start. `make_failing` gives one whose start raises half-way: it leaves nothing behind either.
    """
    before = asyncio.all_tasks()
    await make().__aexit__(None, None, None)

    component = make()
    await component.__aenter__()
    try:
        await component.__aenter__()
    except RuntimeError:
        pass
    else:
        raise AssertionError("a component must refuse to be started twice")
    await component.__aexit__(None, None, None)
    await component.__aexit__(None, None, None)
    await _assert_nothing_left(before)

    if make_failing is not None:
        failed = False
        try:
            await make_failing().__aenter__()
        except Exception:
            failed = True
        assert failed, "the start was expected to fail"
        await _assert_nothing_left(before)

    async with make():
        pass
    await _assert_nothing_left(before)


async def _assert_nothing_left(before: "set[asyncio.Task[Any]]") -> None:
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=1)  # a task that has been cancelled needs a turn to end
    names = [task.get_name() for task in asyncio.all_tasks() - before]
    assert not names, f"tasks left behind: {names}"
