"""A queue whose tasks get their row in a store beside it; a table stands in for the store but in the last tests."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runnerlib.contract import TaskState
from taskqueue.connect import open_embedded
from taskqueue.errors import QueueUnavailable, StoreUnavailable
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue
from taskqueue.sql.store import SqlStore
from taskqueue.sqlite.queue import SqliteQueue
from taskqueue.tasks import NewTask, Published, TaskRow

Run = Callable[[Coroutine[Any, Any, None]], None]
MakeTask = Callable[..., NewTask]
ACCEPTED, DUPLICATE, CONFLICT = Published.ACCEPTED, Published.DUPLICATE, Published.CONFLICT


@dataclass
class Book:
    """A ledger over a table: publishing into it makes rows. It can be away, and others can write first."""

    table: SqliteQueue
    store: SqlStore
    away: bool = False
    before_admit: list[NewTask] = field(default_factory=list)

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        return await self.store.lookup(ids)

    def sealed(self, task: NewTask) -> NewTask:
        return task

    async def admit(self, tasks: Sequence[NewTask]) -> list[Published]:
        if self.away:
            raise StoreUnavailable("the database does not answer")
        await self.table.publish(self.before_admit)
        return await self.table.publish(tasks)


@dataclass
class Broker:
    """Accepts everything, like a broker; remembers what was sent."""

    sent: list[str] = field(default_factory=list)
    away: bool = False

    async def publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        if self.away:
            raise QueueUnavailable("the broker does not answer")
        await asyncio.sleep(0)
        self.sent += [task.id for task in tasks]
        return [ACCEPTED] * len(tasks)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not used here")


@dataclass
class Place:
    broker: Broker
    book: Book
    queue: RecordedQueue


@asynccontextmanager
async def opened() -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_embedded(Path(folder) / "tasks.db") as (table, store):
            broker, book = Broker(), Book(table, store)
            yield Place(broker, book, RecordedQueue(broker, book))


def test_task_is_sent_and_has_a_row(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            assert await place.queue.publish([make_task("a"), make_task("b")]) == [ACCEPTED, ACCEPTED]
            assert place.broker.sent == ["a", "b"]
            rows = await place.book.lookup(["a", "b"])
            assert [row.state for row in rows.values()] == [TaskState.QUEUED] * 2

    run(scenario())


def test_same_task_again_is_not_sent_again(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            await place.queue.publish([make_task("a")])
            again = [make_task("a"), make_task("b"), make_task("a", payload={"text": "other"})]
            assert await place.queue.publish(again) == [DUPLICATE, ACCEPTED, CONFLICT]
            assert place.broker.sent == ["a", "b"]
            assert await place.queue.publish([]) == []

    run(scenario())


def test_same_id_twice_in_one_call_is_one_task(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            tasks = [make_task("a"), make_task("a"), make_task("a", payload={"text": "other"})]
            assert await place.queue.publish(tasks) == [ACCEPTED, DUPLICATE, CONFLICT]
            assert place.broker.sent == ["a"]

    run(scenario())


def test_task_that_was_cancelled_before_it_came_is_not_sent(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            await place.book.store.cancel("a")
            assert await place.queue.publish([make_task("a"), make_task("a")]) == [DUPLICATE, DUPLICATE]
            assert place.broker.sent == []
            row = await place.book.store.get("a")
            assert row is not None
            assert (row.state, row.algorithm, row.digest) == (TaskState.CANCELLED, "upper", make_task("a").digest)

    run(scenario())


def test_controller_that_is_faster_than_the_row_changes_nothing_for_the_sender(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            place.book.before_admit = [make_task("a")]
            assert await place.queue.publish([make_task("a")]) == [ACCEPTED]

    run(scenario())


def test_other_task_that_takes_the_id_in_between_is_told(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            place.book.before_admit = [make_task("a", payload={"text": "other"})]
            assert await place.queue.publish([make_task("a"), make_task("b")]) == [CONFLICT, ACCEPTED]

    run(scenario())


def test_nothing_is_recorded_that_was_not_sent(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            place.broker.away = True
            with pytest.raises(QueueUnavailable):
                await place.queue.publish([make_task("a")])
            assert await place.book.lookup(["a"]) == {}

    run(scenario())


def test_what_was_sent_without_its_row_can_be_sent_again(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            place.book.away = True
            with pytest.raises(StoreUnavailable):
                await place.queue.publish([make_task("a")])
            place.book.away = False
            assert await place.queue.publish([make_task("a")]) == [ACCEPTED]
            assert place.broker.sent == ["a", "a"]

    run(scenario())


def test_everything_else_is_the_queue_s(run: Run, make_task: MakeTask, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_embedded(tmp_path / "tasks.db") as (table, store), opened() as other:
            queue = RecordedQueue(table, other.book)
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            async with asyncio.timeout(30):
                deliveries = await feed.take(2)
            await queue.reply([])
            await queue.release(deliveries[:1])
            await queue.retry(deliveries[1:], [0.0])
            await queue.ack(deliveries[1:])
            async with asyncio.timeout(30):
                again = [*await feed.take(1), *await feed.take(1)]
            assert sorted((delivery.id, delivery.attempt) for delivery in again) == [("a", 1), ("b", 2)]
            await queue.ack(again)
            assert {row.state for row in (await store.lookup(["a", "b"])).values()} == {TaskState.CANCELLED}

    run(scenario())


def test_on_a_real_broker_and_a_real_database(run: Run, make_task: MakeTask, broker: Any, database_url: str) -> None:
    async def scenario() -> None:
        async with (
            open_rabbitmq(broker.url, retry_steps_seconds=(0.2,)) as rabbit,
            open_postgres(database_url) as store,
            open_postgres(database_url) as other_store,
        ):
            first, second = RecordedQueue(rabbit, store), RecordedQueue(rabbit, other_store)
            await store.cancel("c")
            tasks = [make_task("a"), make_task("b"), make_task("a"), make_task("c")]
            assert await first.publish(tasks) == [ACCEPTED, ACCEPTED, DUPLICATE, DUPLICATE]
            again = [make_task("b"), make_task("a", payload={"text": "other"}), make_task("d")]
            assert await second.publish(again) == [DUPLICATE, CONFLICT, ACCEPTED]
            rows = await store.lookup(["a", "b", "c", "d"])
            assert {task_id: row.state for task_id, row in rows.items()} == {
                "a": TaskState.QUEUED,
                "b": TaskState.QUEUED,
                "c": TaskState.CANCELLED,
                "d": TaskState.QUEUED,
            }
            door = await rabbit.ingress_feed()
            arrivals = []
            while len(arrivals) < 3:
                arrivals += await door.take(3)
            assert [arrival.message_id for arrival in arrivals] == ["a", "b", "d"]

    run(scenario())


def test_many_gateways_with_the_same_tasks_agree_on_one_row_each(
    run: Run, make_task: MakeTask, broker: Any, database_url: str
) -> None:
    async def scenario() -> None:
        async with (
            open_rabbitmq(broker.url, retry_steps_seconds=(0.2,)) as rabbit,
            open_postgres(database_url) as store,
            open_postgres(database_url) as other_store,
        ):
            tasks = [make_task(f"task-{n}") for n in range(200)]
            calls = [RecordedQueue(rabbit, each).publish(tasks) for each in (store, other_store) for _ in range(3)]
            verdicts = {verdict for call in await asyncio.gather(*calls) for verdict in call}
            assert verdicts <= {ACCEPTED, DUPLICATE}
            assert len(await store.lookup([task.id for task in tasks])) == 200

    run(scenario())


def test_task_that_is_sent_twice_at_the_same_time_is_one_message(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            same, alone, publish = make_task("a"), make_task("b"), place.queue.publish
            answers = await asyncio.gather(publish([same]), publish([alone, same]), publish([same, alone]))
            assert sorted(place.broker.sent) == ["a", "b"]
            assert answers[0] == [ACCEPTED]
            assert sorted(answers[1] + answers[2], key=str) == [ACCEPTED] + [DUPLICATE] * 3

    run(scenario())


def test_task_whose_first_sending_failed_gets_its_row_from_who_waited_for_it(run: Run, make_task: MakeTask) -> None:
    async def scenario() -> None:
        async with opened() as place:
            place.book.away = True
            first, second = (asyncio.create_task(place.queue.publish([make_task("a")])) for _ in range(2))
            first.add_done_callback(lambda _: setattr(place.book, "away", False))
            with pytest.raises(StoreUnavailable):
                await first
            assert await second == [ACCEPTED]
            assert place.broker.sent == ["a", "a"]

    run(scenario())
