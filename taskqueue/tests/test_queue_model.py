"""Any order of calls: the queue against a dictionary."""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from runnerlib.contract import FailureCode, TaskState, task_digest
from taskqueue.connect import open_embedded
from taskqueue.tasks import DeadAnswer, Delivery, Failed, NewTask, Published, Retrying, Succeeded

IDS = st.sampled_from([f"t{n}" for n in range(12)])
PREFETCH = 4


@dataclass
class Known:
    """What must be true of one task."""

    attempt: int = 1
    ended: bool = False
    out: Delivery | None = None
    count: int = 0
    failed: bool = False


@dataclass
class Letter:
    """What must be true of one dead letter: whose it is, the attempt that failed, and what was decided."""

    task_id: str
    attempt: int
    decided: DeadAnswer | None = None


def new_task(task_id: str) -> NewTask:
    return NewTask(task_id, "upper", b'"x"', task_digest("upper", "x"))


class QueueMachine(RuleBasedStateMachine):
    """One feed on a file, whose owner may be replaced by the next one; everything that can happen to a task."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.stack = AsyncExitStack()
        self.known: dict[str, Known] = {}
        self.letters: dict[int, Letter] = {}

    async def open(self) -> None:
        path = Path(self.folder.name) / "tasks.db"
        self.queue, self.store = await self.stack.enter_async_context(open_embedded(path))

    @initialize()
    def begin(self) -> None:
        self.runner.run(self.begin_feed(first=True))

    async def begin_feed(self, first: bool = False) -> None:
        if first:
            await self.open()
        self.feed = await self.queue.feed("upper")
        await self.feed.set_prefetch(PREFETCH)

    @rule(ids=st.lists(IDS, min_size=1, max_size=5))
    def publish(self, ids: list[str]) -> None:
        answers = self.runner.run(self.queue.publish([new_task(task_id) for task_id in ids]))
        for task_id, answer in zip(ids, answers, strict=True):
            assert answer is (Published.DUPLICATE if task_id in self.known else Published.ACCEPTED)
            self.known.setdefault(task_id, Known())
        self.settled()

    def settled(self) -> None:
        """Waits until the feed has fetched all it should: then what follows does not depend on time."""
        expected = min(len(self.waiting()), PREFETCH - len(self.out()))

        async def fetched() -> None:
            async with asyncio.timeout(30):
                while self.feed.waiting() != expected:
                    await asyncio.sleep(0.001)

        self.runner.run(fetched())

    def waiting(self) -> list[str]:
        return [task_id for task_id, known in self.known.items() if not known.ended and known.out is None]

    def out(self) -> list[Known]:
        return [known for known in self.known.values() if known.out is not None]

    @precondition(lambda self: self.waiting() and len(self.out()) < PREFETCH)
    @rule(most=st.integers(1, PREFETCH))
    def take(self, most: int) -> None:
        expected = min(most, self.feed.waiting())
        taken = self.runner.run(asyncio.wait_for(self.feed.take(most), 30))
        assert len(taken) == expected
        for delivery in taken:
            known = self.known[delivery.id]
            assert not known.ended
            assert known.out is None, "handed out twice at the same time"
            assert (delivery.attempt, delivery.delivery_count) == (known.attempt, known.count)
            known.out = delivery
        self.settled()

    @precondition(lambda self: self.out())
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.out()))
        assert self.runner.run(self.store.record([Succeeded(known.out, b"1")])) == [True]
        self.runner.run(self.queue.ack([known.out]))
        assert self.runner.run(self.store.record([Succeeded(known.out, b"2")])) == [False]
        known.out, known.ended = None, True
        self.settled()

    @precondition(lambda self: self.out())
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.out()))
        assert known.out is not None
        assert self.runner.run(self.store.record([Failed(known.out, FailureCode.TIMEOUT, "slow")])) == [True]
        self.runner.run(self.queue.ack([known.out]))
        newest = max(line.dead_id for line in self.runner.run(self.store.dead_letters()))
        assert newest not in self.letters
        self.letters[newest] = Letter(known.out.id, known.attempt)
        known.out, known.ended, known.failed = None, True, True
        self.settled()

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        dead_id = data.draw(st.sampled_from(sorted(self.letters)))
        letter = self.letters[dead_id]
        known = self.known.get(letter.task_id)
        answer = letter.decided or (DeadAnswer.REPLAYED if known is None or known.failed else DeadAnswer.NOT_FAILED)
        assert self.runner.run(self.queue.replay([dead_id])) == [answer]
        if answer is DeadAnswer.REPLAYED:
            attempt = 1 + max(letter.attempt, known.attempt if known else 0)
            self.known[letter.task_id] = Known(attempt)
            letter.decided = DeadAnswer.ALREADY_REPLAYED
        self.settled()

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        dead_id = data.draw(st.sampled_from(sorted(self.letters)))
        letter = self.letters[dead_id]
        answer = letter.decided or DeadAnswer.DISCARDED
        assert self.runner.run(self.store.discard([dead_id])) == [answer]
        letter.decided = letter.decided or DeadAnswer.ALREADY_DISCARDED

    @rule()
    def forget(self) -> None:
        """Retention drops what has ended, and dead letters on which somebody has decided."""
        ended = [task_id for task_id, known in self.known.items() if known.ended]
        decided = [dead_id for dead_id, letter in self.letters.items() if letter.decided]
        assert self.runner.run(self.store.purge(time.time() + 60, 1000)) == len(ended) + len(decided)
        for task_id in ended:
            del self.known[task_id]
        for dead_id in decided:
            del self.letters[dead_id]
        left = [line.dead_id for line in self.runner.run(self.store.dead_letters())]
        assert left == sorted(self.letters, reverse=True)

    @precondition(lambda self: self.out())
    @rule(data=st.data(), record_first=st.booleans())
    def retry(self, data: st.DataObject, record_first: bool) -> None:
        known = data.draw(st.sampled_from(self.out()))
        record = Retrying(known.out, FailureCode.TIMEOUT, "slow", 0.0)
        if record_first:
            self.runner.run(self.store.record([record]))
        self.runner.run(self.queue.retry([known.out], [0.0]))
        if not record_first:
            self.runner.run(self.store.record([record]))
        self.runner.run(self.queue.ack([known.out]))
        known.out, known.attempt, known.count = None, known.attempt + 1, 0
        self.settled()

    @precondition(lambda self: self.out())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from(self.out()))
        self.runner.run(self.queue.release([known.out]))
        old, known.out = known.out, None
        self.runner.run(self.queue.ack([old]))
        self.settled()

    @rule(task_id=IDS)
    def cancel(self, task_id: str) -> None:
        """The feed is a new one then: a task that has ended may still be in the buffer of the old one."""
        self.runner.run(self.feed.close())
        self.runner.run(self.store.cancel(task_id))
        row = self.runner.run(self.store.get(task_id))
        known = self.known.setdefault(task_id, Known())
        if row.state is TaskState.CANCELLED:
            known.ended = True
            if known.out is not None:
                self.runner.run(self.queue.ack([known.out]))
                known.out = None
        self.reopen_feed()

    @rule()
    def reopen_feed(self) -> None:
        self.runner.run(self.feed.close())
        self.runner.run(self.begin_feed())
        for known in self.out():
            # the new feed has room of its own; settle what the old one had out, to keep the count simple
            self.runner.run(self.queue.release([known.out]))
            known.out = None
        self.settled()

    @rule()
    def next_owner(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.run(self.begin_feed(first=True))
        for known in self.out():
            known.out = None
            known.count += 1
        self.settled()

    def teardown(self) -> None:
        try:
            if hasattr(self, "feed"):
                for known in self.out():
                    self.runner.run(self.queue.release([known.out]))
                    known.out = None
                self.settled()
                while self.waiting():
                    self.take(PREFETCH)
                    for known in self.out():
                        self.runner.run(self.store.record([Succeeded(known.out, b"1")]))
                        self.runner.run(self.queue.ack([known.out]))
                        known.out, known.ended = None, True
                rows = self.runner.run(self.store.lookup(list(self.known)))
                assert all(row.state.is_terminal for row in rows.values())
                assert len(rows) == len(self.known)
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()
            self.folder.cleanup()


LIMITS = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSqliteQueue = QueueMachine.TestCase
TestSqliteQueue.settings = LIMITS
