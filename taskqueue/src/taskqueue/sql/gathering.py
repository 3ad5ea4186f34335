"""Many callers that ask for one row each share a look into the database. Lives on the event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: Rows of one look; all of them are in memory at the same time.
MOST_AT_ONCE = 256


class Gathering(Generic[Value]):
    """`value = await gathering.get(key)`: one look is under way at a time, and all who ask meanwhile share the next.

    Alone, a caller waits for its own look only. None: nothing is known of the key.
    """

    def __init__(self, look: Callable[[Sequence[str]], Awaitable[dict[str, Value]]]) -> None:
        self._look = look
        self._asked: dict[str, asyncio.Future[Value | None]] = {}
        self._running: asyncio.Task[None] | None = None

    async def get(self, key: str) -> Value | None:
        """Whatever `look` raises is raised for all who share it."""
        future = self._asked.get(key)
        if future is None:
            future = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="look rows up")
        # somebody who gives up takes nothing from those who asked for the same
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._asked:
                keys = list(self._asked)[:MOST_AT_ONCE]
                await self._answer({key: self._asked.pop(key) for key in keys})
        finally:
            self._running = None

    async def _answer(self, asked: dict[str, asyncio.Future[Value | None]]) -> None:
        try:
            found = await self._look(list(asked))
        except Exception as error:
            # Whatever it is belongs to those who asked, if they are still there to take it.
            for future in asked.values():
                future.set_exception(error)
                future.exception()
            return
        for key, future in asked.items():
            future.set_result(found.get(key))
