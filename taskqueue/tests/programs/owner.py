"""An owner of a queue file under load, made to be killed.

Publishes and works off tasks as fast as it can, and notes in LOG what was confirmed to it: one write for each line, so
that the log itself survives a kill.
"""

import asyncio
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from runnerlib.contract import FailureCode, strict_json, task_digest
from taskqueue.connect import open_embedded
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import Delivery, NewTask, Record, Retrying, Succeeded


def main(path: Path, log_path: Path, prefix: str, told: Connection) -> None:
    """Tells when it has the file."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(serve(path, log, prefix, told))


async def serve(path: Path, log: int, prefix: str, told: Connection) -> None:
    async with open_embedded(path) as (queue, store):
        told.send("started")
        await asyncio.gather(publish(queue, log, prefix), work(queue, store, log), work(queue, store, log))


async def publish(queue: TaskQueue, log: int, prefix: str) -> None:
    for number in range(100_000):
        tasks = [make_task(f"{prefix}-{number}-{index}") for index in range(1 + number % 20)]
        await queue.publish(tasks)
        note(log, "published", [task.id for task in tasks])


async def work(queue: TaskQueue, store: TaskStore, log: int) -> None:
    feed = await queue.feed("upper")
    await feed.set_prefetch(32)
    while True:
        taken = await feed.take(16)
        records = [verdict(delivery) for delivery in taken]
        await store.record(records)
        note(log, "recorded", [record.delivery.id for record in records if isinstance(record, Succeeded)])
        await queue.ack(taken)


def verdict(delivery: Delivery) -> Record:
    """Every seventh task fails once."""
    if delivery.attempt == 1 and int(delivery.id.rsplit("-", 1)[1]) % 7 == 3:
        return Retrying(delivery, FailureCode.HANDLER_ERROR, "again", time.time() + 0.05)
    return Succeeded(delivery, strict_json.dumps({"done": delivery.id}))


def make_task(task_id: str) -> NewTask:
    value = {"text": task_id}
    return NewTask(task_id, "upper", strict_json.dumps(value), task_digest("upper", value))


def note(log: int, what: str, ids: list[str]) -> None:
    if ids:
        os.write(log, f"{what} {' '.join(ids)}\n".encode())
