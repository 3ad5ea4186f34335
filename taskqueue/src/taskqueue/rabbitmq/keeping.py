"""Keeps something consuming: a channel of its own, opened again whenever it, or what it carries, is lost."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.connection import ConnectionPool, Report, RobustConnection

_log = logging.getLogger(__name__)

#: Health means that messages flow: who cannot consume for longer is reported.
REPORT_AFTER_SECONDS = 5.0
#: The pause before a channel is opened again grows from the first to the second.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
#: How long one try waits for a connection; then it starts over, and says so.
_CONNECT_SECONDS = 30.0
#: Who consumed for so long starts again with the shortest pause.
_STABLE_SECONDS = 5.0


def part_of(name: str) -> str:
    """What health calls the consuming of a queue."""
    return f"queue {name}"


class Keeper:
    """Runs `serve(channel)` on one channel after the other, until it returns. `name` is what is consumed.

    `awaited`: nothing is ready before it flows for the first time. Otherwise it is given some seconds.
    """

    def __init__(
        self, link: RobustConnection | ConnectionPool, name: str, report: Report, *, awaited: bool = False
    ) -> None:
        self._link = link
        self._name = name
        self._report = report
        self._part = part_of(name)
        self._failures = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._reason = "not connected yet"
        self._reported = awaited
        if awaited:
            report(self._part, False, f"{name} is not consumed yet")

    @property
    def trouble(self) -> str:
        """Why nothing has been consumed for some seconds; empty when something is."""
        return self._reason if self._reported else ""

    async def run(self, serve: Callable[[Channel], Awaitable[None]]) -> None:
        time = asyncio.get_running_loop().time
        self._lost("not connected yet")
        try:
            while True:
                try:
                    channel = await self._link.channel(_CONNECT_SECONDS)
                except QueueUnavailable as error:
                    self._lost(str(error))
                    # It may be refused at once, without a turn of the loop: the connection has no free one, say.
                    await self._pause()
                    continue
                since = time()
                try:
                    await serve(channel)
                    return
                except QueueUnavailable as error:
                    self._lost(str(error))
                    _log.warning("%s is not consumed for now: %s", self._name, error)
                except QueueClosed:
                    raise
                except Exception as error:
                    # Whatever it was, it is tried again: nobody would open a front door a second time.
                    self._lost(f"{type(error).__name__}: {error}")
                    _log.exception("consuming %s failed in an unforeseen way", self._name)
                finally:
                    await channel.close()
                if time() - since >= _STABLE_SECONDS:
                    self._failures = 0
                await self._pause()
        except QueueClosed:
            return
        finally:
            self.flowing()

    def flowing(self) -> None:
        """Told by `serve`: it consumes (or has nothing to consume)."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._reported:
            self._reported = False
            self._report(self._part, True, "")

    def _lost(self, reason: str) -> None:
        self._reason = reason
        if self._alarm is None and not self._reported:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(REPORT_AFTER_SECONDS, self._sound)

    def _sound(self) -> None:
        self._alarm = None
        self._reported = True
        self._report(self._part, False, f"no tasks are consumed from {self._name}: {self._reason}")

    async def _pause(self) -> None:
        """Jittered: the feeds of one connection are lost together."""
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - no secret
