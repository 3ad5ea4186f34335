"""A broker that does what a test tells it: tasks and arrivals are lists, what was settled and answered is kept."""

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runnerlib.contract import strict_json, task_digest
from taskqueue.connect import open_embedded
from taskqueue.errors import QueueClosed
from taskqueue.tasks import Arrival, Delivery, NewTask, Published, Reply


class ScriptedBroker:
    """A TaskQueue. Unlike a table it takes the same id as often as it is sent, and the store knows nothing of it."""

    def __init__(self) -> None:
        self.waiting: dict[str, deque[Delivery]] = {}
        self.acked: list[Any] = []
        self.released: list[Delivery] = []
        #: (next attempt, delay as it was asked for); here all delays are short
        self.retried: list[tuple[int, float]] = []
        self._delayed: set[asyncio.Task[None]] = set()
        self.replies: list[tuple[str, str | None, dict[str, Any]]] = []
        self.raw_replies: list[bytes] = []
        self.door = ScriptedDoor(self)
        #: a `publish` of its own makes rows in the store, as a gateway does
        self.rows: Any = None
        self._receipts = itertools.count(1)
        self._changed = asyncio.Condition()

    async def deliver(self, *tasks: tuple[str, Any], algorithm: str = "echo", **more: Any) -> list[Delivery]:
        """Tasks in their algorithm's queue."""
        deliveries = []
        for task_id, payload in tasks:
            fields = {"attempt": 1, "receipt": None, **more}
            digest = task_digest(algorithm, payload)
            deliveries.append(Delivery(task_id, algorithm, strict_json.dumps(payload), digest, **fields))
            await self._put(deliveries[-1])
        return deliveries

    async def _put(self, delivery: Delivery, *, first: bool = False) -> None:
        queue = self.waiting.setdefault(delivery.algorithm, deque())
        delivery = replace(delivery, receipt=f"receipt-{next(self._receipts)}")
        (queue.appendleft if first else queue.append)(delivery)
        async with self._changed:
            self._changed.notify_all()

    async def publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        for each in tasks:
            await self._put(
                Delivery(
                    each.id,
                    each.algorithm,
                    each.payload,
                    each.digest,
                    attempt=1,
                    receipt=None,
                    expires_at=each.expires_at,
                    reply_to=each.reply_to,
                    correlation_id=each.correlation_id,
                )
            )
        return [Published.ACCEPTED] * len(tasks)

    async def feed(self, algorithm: str) -> "ScriptedFeed":
        return ScriptedFeed(self, algorithm, self._changed)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked += [each.receipt for each in deliveries]

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        for each, delay in zip(deliveries, delay_seconds, strict=True):
            self.retried.append((each.attempt + 1, delay))
            task = asyncio.create_task(self._later(replace(each, attempt=each.attempt + 1, delivery_count=0)))
            self._delayed.add(task)
            task.add_done_callback(self._delayed.discard)

    async def _later(self, delivery: Delivery) -> None:
        await asyncio.sleep(0.02)
        await self._put(delivery)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += deliveries

    async def reply(self, replies: Sequence[Reply]) -> None:
        self.raw_replies += [each.body for each in replies]
        self.replies += [(each.reply_to, each.correlation_id, json.loads(each.body)) for each in replies]

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        return []


class ScriptedFeed:
    trouble = ""
    has_groups = False

    def __init__(self, broker: ScriptedBroker, algorithm: str, changed: asyncio.Condition) -> None:
        self._waiting = broker.waiting.setdefault(algorithm, deque())
        self._changed = changed

    async def set_prefetch(self, count: int, *, in_turn: int | None = None, group_slots: int | None = None) -> None:
        pass

    async def take(self, most: int) -> list[Delivery]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting)
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def waiting(self) -> int:
        return len(self._waiting)

    async def close(self) -> None:
        pass


class ScriptedDoor:
    """A IngressFeed. `troubles` are raised by the next calls of `forward` and `park`."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self._broker = broker
        self._arrivals: deque[Arrival] = deque()
        self._here = asyncio.Event()
        self._numbers = itertools.count(1)
        self.closed = False
        self.troubles: list[BaseException] = []
        #: refuses to pass on whatever has this text in it
        self.poison = b""
        self.forwarded: list[list[NewTask]] = []
        self.parked: list[list[tuple[Arrival, NewTask]]] = []

    def bring(self, *messages: Any, **more: Any) -> list[str]:
        """Messages as their senders write them; returns their receipts."""
        receipts = []
        for message in messages:
            body = message if isinstance(message, bytes) else json.dumps(message).encode()
            receipts.append(f"arrival-{next(self._numbers)}")
            self._arrivals.append(Arrival(body, receipts[-1], **more))
        self._here.set()
        return receipts

    async def take(self, most: int) -> list[Arrival]:
        while not self._arrivals:
            if self.closed:
                raise QueueClosed("the door is closed")
            self._here.clear()
            await self._here.wait()
        return [self._arrivals.popleft() for _ in range(min(most, len(self._arrivals)))]

    async def forward(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        self._fail(arrivals)
        self.forwarded.append(list(tasks))
        await self._broker.publish(tasks)
        self._broker.acked += [each.receipt for each in arrivals]

    async def park(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        self._fail(arrivals)
        self.parked.append(list(zip(arrivals, tasks, strict=True)))
        self._broker.acked += [each.receipt for each in arrivals]

    async def close(self) -> None:
        self.closed = True
        self._here.set()

    def _fail(self, arrivals: Sequence[Arrival]) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        if self.poison and any(self.poison in each.body for each in arrivals):
            raise ValueError("poison")


@pytest.fixture
def broker_world(worlds: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """``async with broker_world() as (world, broker)``: a scripted broker, and a store on SQLite."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Any, ScriptedBroker]]:
        broker = ScriptedBroker()

        async def open_door() -> ScriptedDoor:
            return broker.door

        async with (
            open_embedded(tmp_path / "rows.db") as (broker.rows, store),
            worlds(parts=(broker, store, broker, open_door)) as world,
        ):
            world.ledger = SimpleNamespace(admit=broker.rows.publish)
            yield world, broker

    return opened
