"""The answer of an async call, whatever becomes of what the call left."""

import asyncio
from typing import Any

from runnerlib.process.calls import AsyncCalls
from runnerlib.process.ipc import CallRequest


class Stubborn:
    """A folder that cannot be emptied."""

    def empty(self) -> None:
        raise RecursionError


class Sent:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def check(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.frames.append(data)


def test_an_answer_goes_out_when_what_the_call_left_cannot_be_removed() -> None:
    async def answer() -> bytes:
        return b"the answer"

    async def end() -> None:
        loop = asyncio.get_running_loop()
        unused: Any = None
        calls = AsyncCalls(unused, connection, False, loop, folder)
        task = loop.create_task(answer())
        await task
        calls._ended(CallRequest(1, "x", False, b'[["t", 1]]', [None], [b"{}"]), task)
        await asyncio.sleep(0)

    connection: Any = Sent()
    folder: Any = Stubborn()
    asyncio.run(end())
    assert b"".join(connection.frames).startswith(b"the answer")
