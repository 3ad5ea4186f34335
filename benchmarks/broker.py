"""No-op tasks that wait in RabbitMQ: through an HTTP runner with results in PostgreSQL, beside a bare pika consumer.

    .venv/bin/python benchmarks/broker.py [--tasks 20000] [--broker 4]

Starts servers of its own (RabbitMQ and PostgreSQL must be installed). Both sides take the same number of prefilled,
persistent messages from a quorum queue on the same broker, one after the other. The bare consumer is the practical
limit of pika on one core: AsyncioConnection on uvloop, one acknowledgement for each message, nothing done, nothing
kept. Absolute figures depend on the machine; compare the ratio.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pika
import psutil
from pika.adapters.asyncio_connection import AsyncioConnection

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "lib"))

from environments import Production, Service, until  # noqa: E402
from servers.postgresql import PostgreSQL, find_binaries  # noqa: E402
from servers.processes import family  # noqa: E402
from servers.rabbitmq import RabbitMQ, installations  # noqa: E402

BARE_QUEUE = "bare"
PREFETCH = 500


def prefill(url: str, queue: str, algorithm: str, count: int) -> float:
    """Publishes them confirmed, in windows; how long it took."""

    async def publish() -> float:
        opened, confirmed = asyncio.Event(), asyncio.Event()
        connection = AsyncioConnection(pika.URLParameters(url), on_open_callback=lambda _: opened.set())
        await asyncio.wait_for(opened.wait(), 20)
        ready = asyncio.Event()
        channel = connection.channel(on_open_callback=lambda _: ready.set())
        await asyncio.wait_for(ready.wait(), 20)
        highest = 0

        def on_confirm(frame: Any) -> None:
            nonlocal highest
            highest = max(highest, frame.method.delivery_tag)
            if highest >= count:
                confirmed.set()

        channel.confirm_delivery(on_confirm)
        started = time.perf_counter()
        for n in range(count):
            body = json.dumps({"algorithm": algorithm, "payload": {"number": n}}).encode()
            properties = pika.BasicProperties(delivery_mode=2, message_id=f"{algorithm}-{n}-{started}")
            channel.basic_publish("", queue, body, properties)
            while n - highest > 2000:  # noqa: ASYNC110 - the confirms come by themselves
                await asyncio.sleep(0.001)
        await asyncio.wait_for(confirmed.wait(), 120)
        seconds = time.perf_counter() - started
        connection.close()
        await asyncio.sleep(0.1)
        return seconds

    return asyncio.run(publish())


def consume_bare(url: str, count: int) -> None:
    """The other side of the comparison, run in a process of its own; prints messages a second."""
    import uvloop

    async def consume() -> float:
        over = asyncio.Event()
        seen, started = 0, 0.0

        def on_message(channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
            nonlocal seen, started
            started = started or time.perf_counter()
            seen += 1
            channel.basic_ack(method.delivery_tag)
            if seen == count:
                over.set()

        def on_channel(channel: Any) -> None:
            channel.basic_qos(prefetch_count=PREFETCH)
            channel.basic_consume(BARE_QUEUE, on_message)

        connection = AsyncioConnection(
            pika.URLParameters(url), on_open_callback=lambda made: made.channel(on_open_callback=on_channel)
        )
        await asyncio.wait_for(over.wait(), 300)
        rate = count / (time.perf_counter() - started)
        connection.close()
        await asyncio.sleep(0.1)
        return rate

    print(uvloop.run(consume()))


def bare_rate(url: str, count: int) -> float:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(BARE_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    prefill(url, BARE_QUEUE, "noop", count)
    command = [sys.executable, str(Path(__file__).resolve()), "--bare", url, "--tasks", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def cpu_seconds(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def pid_of(service: Service) -> int:
    assert service.process is not None
    return service.process.pid


def spine_rate(
    environment: Production, runner: Service, broker: RabbitMQ, database: PostgreSQL, algorithm: str, count: int
) -> float:
    """Tasks a second from the first committed result to the last, and who used the CPU meanwhile."""
    controller = environment.controllers[0]
    controller.stop()
    prefill(environment.queue_url, f"tasks.{algorithm}", algorithm, count)
    done = f"SELECT count(*), min(finished_at), max(finished_at) FROM tasks WHERE id LIKE '{algorithm}-%'"  # noqa: S608
    already = environment.rows(done)[0][0]
    controller.start()
    groups = {
        "controller": family(pid_of(controller)),
        "runner": family(pid_of(runner)),
        "RabbitMQ": family(broker.pid),
        "PostgreSQL": family(database.pid),
    }
    before = {name: cpu_seconds(members) for name, members in groups.items()}
    until(lambda: environment.rows(done)[0][0] >= already + count, "all results are stored", 300)
    used = {name: cpu_seconds(members) - before[name] for name, members in groups.items()}
    newest = (
        f"SELECT min(finished_at), max(finished_at) FROM (SELECT finished_at FROM tasks WHERE id LIKE '{algorithm}-%'"  # noqa: S608
        f" ORDER BY finished_at DESC LIMIT {count}) AS newest"
    )
    first, last = environment.rows(newest)[0]
    rate = count / (last - first)
    print(f"\n{algorithm}: {count} tasks in {last - first:.2f} s: {rate:,.0f} tasks/s")
    for name, seconds in used.items():
        print(f"  {name:12} {seconds / count * 1e6:6.0f} µs of CPU a task (start-up included)")
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--broker", default="4", help="major version: 3 or 4")
    parser.add_argument("--bare", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        consume_bare(options.bare, options.tasks)
        return
    binaries = find_binaries()
    if binaries is None or options.broker not in installations():
        raise SystemExit("RabbitMQ and PostgreSQL must be installed")
    with (
        tempfile.TemporaryDirectory() as folder,
        RabbitMQ(installations()[options.broker]) as broker,
        PostgreSQL(binaries) as database,
    ):
        environment = Production(
            Path(folder), queue_url=broker.url, database_url=database.url, core_settings={"LOG_LEVEL": "WARNING"}
        )
        try:
            compare(environment, broker, database, options.tasks, options.rounds)
        finally:
            environment.stop()


def compare(environment: Production, broker: RabbitMQ, database: PostgreSQL, tasks: int, rounds: int) -> None:
    environment.start()
    runner = environment.runner(str(HERE / "runners" / "bench"), "bench").start()
    environment.wait_offered(runner)
    for algorithm in ("noop", "noop_batched"):
        environment.finished(environment.submit(algorithm, {"number": 1}))
    print(f"RabbitMQ {broker.installation.version}")
    ratios = []
    for _ in range(rounds):
        bare = bare_rate(environment.queue_url, tasks)
        print(f"\nbare pika consumer: {bare:,.0f} messages/s")
        for algorithm in ("noop", "noop_batched"):
            ratios.append(spine_rate(environment, runner, broker, database, algorithm, tasks) / bare)
            print(f"  = {ratios[-1]:.2f} of the bare consumer")
    print(f"\nmedian ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
