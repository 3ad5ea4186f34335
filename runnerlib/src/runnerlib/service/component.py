"""What every component of a service is: an async context manager that unwinds what it began."""

from contextlib import AsyncExitStack
from types import TracebackType

from typing_extensions import Self


class Component:
    """Subclasses write `_start`, which enters their parts on the stack they are given.

    A start that fails half-way undoes what it did; stopping twice, or before the start, does nothing; starting twice
    is refused.
    """

    _stack: AsyncExitStack | None = None

    async def _start(self, stack: AsyncExitStack) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise RuntimeError(f"this {type(self).__name__} has been started already; make another one")
        self._stack = AsyncExitStack()
        try:
            await self._start(self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stack is not None:
            await self._stack.aclose()
