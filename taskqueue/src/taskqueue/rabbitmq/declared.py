"""What has been declared on this connection: the topology once, each algorithm's queue once."""

import asyncio
from collections.abc import Sequence

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.connection import RobustConnection
from taskqueue.rabbitmq.topology import declare_algorithm, declare_topology


class Declared:
    """Remembers until the link connects anew, or until somebody says that something is missing."""

    def __init__(self, link: RobustConnection, steps_seconds: Sequence[float]) -> None:
        self._link = link
        self._steps_seconds = steps_seconds
        self._epoch = 0
        self._algorithms: set[str] = set()
        self._lock = asyncio.Lock()

    async def topology(self, channel: Channel) -> None:
        """Everything but the algorithms' queues. Raises QueueUnavailable."""
        async with self._lock:
            if self._epoch != self._link.epoch:
                epoch = self._link.epoch
                self._algorithms.clear()
                await declare_topology(channel, steps_seconds=self._steps_seconds)
                self._epoch = epoch

    async def algorithm(self, channel: Channel, algorithm: str) -> None:
        """The queue of one algorithm, and what it needs. Raises QueueUnavailable."""
        await self.topology(channel)
        if algorithm not in self._algorithms:
            try:
                await declare_algorithm(channel, algorithm)
            except QueueUnavailable:
                # Something that was declared is gone.
                self.forget()
                raise
            self._algorithms.add(algorithm)

    def has(self, algorithm: str) -> bool:
        """Whether nothing needs to be done for it."""
        return self._epoch == self._link.epoch and algorithm in self._algorithms

    def missing(self, algorithm: str) -> None:
        """A message for it came back: nobody has its queue."""
        self._algorithms.discard(algorithm)

    def forget(self) -> None:
        """Something was deleted: declare all again."""
        self._epoch = 0
