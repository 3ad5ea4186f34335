"""How fast the SQLite queue and store move small tasks, and where the time goes. Prints; asserts nothing.

python benchmarks/queue_throughput.py [--tasks 100000] [--batch 128] [--profile] [--folder DIR]
"""

import argparse
import asyncio
import cProfile
import pstats
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runnerlib.contract import strict_json, task_digest
from taskqueue.connect import open_embedded
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import NewTask, Succeeded


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="queue-throughput-"))
    print(f"{options.tasks} tasks in batches of {options.batch}, on {folder}")
    asyncio.run(_measure(folder / "tasks.db", options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--publishers", type=int, default=2, help="batches that are published at the same time")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to put the file (default: the temporary folder)"
    )
    parser.add_argument(
        "--profile", action="store_true", help="also print where the event loop's and the writer's time goes"
    )
    return parser.parse_args()


async def _measure(path: Path, options: argparse.Namespace) -> None:
    async with open_embedded(path) as (queue, store):
        batches = list(_batches(options.tasks, options.batch))
        print(f"memory before: {_resident_mib():.0f} MiB (with the sender's own list of tasks)")
        await _phase("publish", options, lambda: _publish(queue, batches, options.publishers))
        batches.clear()
        print(f"memory with all waiting: {_resident_mib():.0f} MiB; file {_size_mib(path):.0f} MiB")
        await _phase("counts", options, store.counts, count=1)
        await _phase("take → look up → record → ack", options, lambda: _consume(queue, store, options))
        print(f"memory after: {_resident_mib():.0f} MiB (peak {_peak_mib():.0f})")
        await _phase("counts", options, store.counts, count=1)


def _batches(count: int, size: int) -> Iterator[list[NewTask]]:
    for start in range(0, count, size):
        yield [_task(number) for number in range(start, min(start + size, count))]


def _task(number: int) -> NewTask:
    value = {"text": f"number {number}"}
    return NewTask(
        id=f"task-{number:08}-{number * 2654435761 % 2**32:08x}",
        algorithm="upper",
        payload=strict_json.dumps(value),
        digest=task_digest("upper", value),
    )


async def _publish(queue: TaskQueue, batches: list[list[NewTask]], publishers: int) -> None:
    waiting = iter(batches)

    async def publisher() -> None:
        for batch in waiting:
            await queue.publish(batch)

    await asyncio.gather(*(publisher() for _ in range(publishers)))


async def _consume(queue: TaskQueue, store: TaskStore, options: argparse.Namespace) -> None:
    feed = await queue.feed("upper")
    await feed.set_prefetch(4 * options.batch)
    left = options.tasks

    async def consumer() -> None:
        nonlocal left
        while left > 0:
            taken = await feed.take(min(options.batch, left))
            left -= len(taken)
            await store.lookup([delivery.id for delivery in taken])
            await store.record([Succeeded(delivery, b'"DONE"', runner="text-1") for delivery in taken])
            await queue.ack(taken)

    consumers = [asyncio.create_task(consumer()) for _ in range(2)]
    await asyncio.wait(consumers, return_when=asyncio.FIRST_COMPLETED)
    while left > 0:
        await asyncio.wait(consumers, return_when=asyncio.FIRST_COMPLETED)
    await feed.close()
    await asyncio.gather(*consumers, return_exceptions=True)


async def _phase(
    name: str, options: argparse.Namespace, action: Callable[[], Awaitable[object]], count: int | None = None
) -> None:
    with _profiled(options.profile and count is None):
        began, busy = time.perf_counter(), time.process_time()
        await action()
        wall, cpu = time.perf_counter() - began, time.process_time() - busy
    number = count or options.tasks
    print(f"{name}: {number / wall:,.0f}/s, {wall:.2f} s, processor {cpu / number * 1e6:.0f} µs each")


@contextmanager
def _profiled(enabled: bool) -> Iterator[None]:
    """Profiles the event loop's thread; the writer's time shows as what is missing to the whole."""
    if not enabled:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(15)


def _size_mib(path: Path) -> float:
    return path.stat().st_size / 2**20


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
