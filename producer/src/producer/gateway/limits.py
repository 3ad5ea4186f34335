"""What may be sent: so much a second with each token, and so many tasks that wait, of a token and of an algorithm.

Rates are kept in this process, so each of several gateways lets as much in. Waiting tasks are counted in the store.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from producer.gateway.admission import CatalogueView, Refused
from producer.gateway.callers import Caller
from producer.gateway.problem_codes import ProblemCode
from runnerlib.service.token_bucket import TokenBucket
from taskqueue.protocols import TaskStore
from taskqueue.tasks import NewTask
from taskqueue.tokens import SendLimits

#: Waiting tasks of a token or an algorithm are counted again after this long.
COUNT_AGAIN_SECONDS = 1.0
#: Tokens and algorithms that are remembered; those that were used last.
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Of one token; None: without such a limit."""

    tasks: TokenBucket | None
    bytes: TokenBucket | None


class RateLimits:
    """Holds each token to its tasks and bytes a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: by key id; what was used last is at the end
        self._buckets: OrderedDict[str, _Buckets] = OrderedDict()

    def take(self, caller: Caller, tasks: int, size: int) -> Refused | None:
        """Counts a request with so many tasks and bytes; or why it is refused, and when it would not be."""
        if not caller.limits.has_rates or caller.key_id is None:
            return None
        refused = self.refusal(caller, tasks, size)
        if refused is None:
            buckets = self._buckets[caller.key_id]
            if buckets.tasks is not None:
                buckets.tasks.take(tasks)
            if buckets.bytes is not None:
                buckets.bytes.take(size)
        return refused

    def refusal(self, caller: Caller, tasks: int, size: int) -> Refused | None:
        """The same without counting it."""
        if not caller.limits.has_rates or caller.key_id is None:
            return None
        now = self._clock()
        buckets = self._of(caller.key_id, caller.limits, now)
        tasks_in = 0.0 if buckets.tasks is None else buckets.tasks.wait_seconds(tasks, now)
        bytes_in = 0.0 if buckets.bytes is None else buckets.bytes.wait_seconds(size, now)
        seconds = math.ceil(max(tasks_in, bytes_in))
        if not seconds:
            return None
        limit = _tasks_a_second(caller.limits) if tasks_in >= bytes_in else _bytes_a_second(caller.limits)
        message = f"this token may send {limit}; nothing of this request was queued, send it again in {seconds} s"
        return Refused(ProblemCode.RATE_LIMITED, message, retry_after_seconds=seconds)

    def _of(self, key_id: str, limits: SendLimits, now: float) -> _Buckets:
        found = self._buckets.get(key_id)
        if found is None:
            rate, size = limits.rate_per_second, limits.bytes_per_second
            found = self._buckets[key_id] = _Buckets(
                None if rate is None else TokenBucket(rate, limits.burst or max(1, math.ceil(rate)), now),
                None if size is None else TokenBucket(size, size, now),
            )
            if len(self._buckets) > MOST_REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key_id)
        return found


def _tasks_a_second(limits: SendLimits) -> str:
    burst = "" if limits.burst is None else f", {limits.burst} at once"
    return f"{limits.rate_per_second:g} tasks a second{burst}"


def _bytes_a_second(limits: SendLimits) -> str:
    return f"{limits.bytes_per_second} bytes a second"


@dataclass(frozen=True, slots=True)
class _Waiters:
    """Whose waiting tasks are counted: those of a token, or of an algorithm."""

    key_id: str | None = None
    algorithm: str | None = None

    @property
    def words(self) -> str:
        return "this token" if self.algorithm is None else repr(self.algorithm)


@dataclass(slots=True)
class _Room:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    counted: int = 0
    #: monotonic
    counted_at: float = -math.inf
    #: let in since then, and those of them that the store may not have yet
    added: int = 0
    on_their_way: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """So many tasks that want in where at most so many may wait."""

    waiters: _Waiters
    room: _Room
    count: int
    most: int


class WaitingLimits:
    """Holds tokens, and algorithms whose authors say so, to the number of their tasks that may wait."""

    def __init__(self, store: TaskStore, view: CatalogueView, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._view = view
        self._clock = clock
        #: what was used last is at the end
        self._rooms: OrderedDict[_Waiters, _Room] = OrderedDict()

    def entries(self, caller: Caller, tasks: Sequence[NewTask]) -> list[Entry]:
        """The limits that these tasks meet; empty: none."""
        entries = []
        if caller.limits.most_waiting is not None and caller.key_id is not None:
            entries.append(self._entry(_Waiters(key_id=caller.key_id), len(tasks), caller.limits.most_waiting))
        known = {} if self._view.catalogue is None else self._view.catalogue.algorithms
        for name in {task.algorithm for task in tasks}:
            most = known[name].description.limits.most_waiting if name in known else None
            if most is not None:
                count = sum(task.algorithm == name for task in tasks)
                entries.append(self._entry(_Waiters(algorithm=name), count, most))
        return entries

    async def enter(self, entries: Sequence[Entry]) -> Refused | None:
        """None: queue the tasks, then `leave`. Or why all of them are refused. Raises StoreUnavailable."""
        refused = await self._refused(entries)
        if refused is None:
            for entry in entries:
                entry.room.added += entry.count
                entry.room.on_their_way += entry.count
        return refused

    def leave(self, entries: Sequence[Entry]) -> None:
        """The tasks that were let in are in the store, or will never be."""
        for entry in entries:
            entry.room.on_their_way -= entry.count

    async def _refused(self, entries: Sequence[Entry]) -> Refused | None:
        for entry in entries:
            words, most = entry.waiters.words, entry.most
            if entry.count > most:
                message = f"at most {most} tasks of {words} may wait, and here are {entry.count}; send fewer at once"
                return Refused(ProblemCode.TOO_LARGE, message, entry.waiters.algorithm)
            await self._count(entry)
        # from here on nothing is awaited until the tasks have been added
        for entry in entries:
            if entry.room.counted + entry.room.added + entry.count > entry.most:
                message = (
                    f"at most {entry.most} tasks of {entry.waiters.words} may wait; nothing of this request was "
                    "queued, send it again when some of them have started"
                )
                seconds = math.ceil(COUNT_AGAIN_SECONDS)
                code, algorithm = ProblemCode.TOO_MANY_WAITING, entry.waiters.algorithm
                return Refused(code, message, algorithm, retry_after_seconds=seconds)
        return None

    async def _count(self, entry: Entry) -> None:
        """Counts what waits, if it was not just counted. What is on its way may be counted twice, never left out."""
        room, waiters = entry.room, entry.waiters
        async with room.lock:
            now = self._clock()
            if now - room.counted_at < COUNT_AGAIN_SECONDS:
                return
            room.added = room.on_their_way
            room.counted = await self._store.count_waiting(
                entry.most, algorithm=waiters.algorithm, submitted_by=waiters.key_id
            )
            room.counted_at = now

    def _entry(self, waiters: _Waiters, count: int, most: int) -> Entry:
        room = self._rooms.setdefault(waiters, _Room())
        self._rooms.move_to_end(waiters)
        if len(self._rooms) > MOST_REMEMBERED:
            self._rooms.popitem(last=False)
        return Entry(waiters, room, count, most)
