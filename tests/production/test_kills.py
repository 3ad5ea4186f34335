"""Controllers and brokers killed over and over under load: what was confirmed has exactly one result."""

import contextlib
import json
import logging
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pika
import pytest
import requests
from environments import Production, until
from servers.rabbitmq import RabbitMQ

# the sender expects to be refused
logging.getLogger("pika").setLevel(logging.CRITICAL)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TASKS = 6_000
CONTROLLER_KILLS = 10
BROKER_KILLS = 2
PART = 50


class Sender:
    """Sends numbers until told to stop; every second part through the gateway, the others straight to the broker."""

    def __init__(self, environment: Production, log: Path) -> None:
        self.confirmed: dict[str, int] = {}
        self._environment = environment
        self._log = str(log)
        self.pause_seconds = 0.15
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def finish(self) -> None:
        """Sends what is left of 6,000 without a pause."""
        self.pause_seconds = 0.0
        until(lambda: len(self.confirmed) >= TASKS, "all tasks were sent and confirmed", 180)

    def _send(self) -> None:
        by_gateway = True
        while not self._over.is_set() and len(self.confirmed) < TASKS:
            start = len(self.confirmed)
            numbers = range(start, start + PART)
            send = self._by_gateway if by_gateway else self._by_broker
            if send(numbers):
                self.confirmed.update({f"task-{n}": n for n in numbers})
                by_gateway = not by_gateway
            self._over.wait(self.pause_seconds)

    def _message(self, number: int) -> dict[str, Any]:
        payload = {"number": number, "log": self._log, "seconds": 0.005}
        return {"algorithm": "noted", "payload": payload, "id": f"task-{number}"}

    def _by_gateway(self, numbers: range) -> bool:
        part = [self._message(n) for n in numbers]
        with contextlib.suppress(requests.RequestException):
            answer = requests.post(f"{self._environment.core.url}/tasks/batch", json=part, timeout=20)
            return answer.status_code == 202
        return False

    def _by_broker(self, numbers: range) -> bool:
        parameters = pika.URLParameters(self._environment.queue_url)
        parameters.blocked_connection_timeout = parameters.socket_timeout = parameters.stack_timeout = 10
        try:
            with pika.BlockingConnection(parameters) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                for n in numbers:
                    body = json.dumps(self._message(n)).encode()
                    channel.basic_publish("", "tasks", body, pika.BasicProperties(delivery_mode=2), mandatory=True)
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True


def kill_controllers(environment: Production, count: int, chance: random.Random) -> None:
    pause = threading.Event()
    for n in range(count):
        pause.wait(chance.uniform(0.5, 2.0))
        victim = environment.controllers[n % len(environment.controllers)]
        victim.kill()
        victim.start(ready=False)


def test_every_confirmed_task_has_exactly_one_result(
    production_on: Any, own_broker: Any, database_url: str, execution_log: Path
) -> None:
    server: RabbitMQ = own_broker()
    environment: Production = production_on(server.url, database_url)
    environment.start("steady", controllers=2)
    chance = random.Random(11)
    with Sender(environment, execution_log) as sender:
        for _ in range(BROKER_KILLS):
            until(lambda: execution_log.stat().st_size > 0, "tasks flow")
            kill_controllers(environment, CONTROLLER_KILLS // BROKER_KILLS, chance)
            server.kill()
            server.start()
        assert len(sender.confirmed) < TASKS, "the kills came too late to matter"
        sender.finish()
    open_tasks = "SELECT count(*) FROM tasks WHERE finished_at IS NULL"
    done = "SELECT count(*) FROM tasks WHERE state = 'succeeded'"
    until(lambda: environment.rows(done) == [(TASKS,)], "every task has its result", 180)
    assert environment.rows(open_tasks) == [(0,)]
    results = {row[0]: int(row[1]) for row in environment.rows("SELECT id, result FROM tasks")}
    assert results == {task_id: n * n for task_id, n in sender.confirmed.items()}
    ran = Counter(line.split()[0] for line in execution_log.read_text().splitlines())
    assert set(ran) == set(sender.confirmed)
    print(
        f"RabbitMQ {server.installation.version}: {len(results)} tasks, {CONTROLLER_KILLS} controller kills, "
        f"{BROKER_KILLS} broker kills, {sum(ran.values())} executions"
    )
    until(lambda: _is_empty(server), "nothing waits and nothing is unacknowledged", 60)


def _is_empty(server: RabbitMQ) -> bool:
    queues = server.management("GET", "queues")
    return bool(queues) and all(queue.get("messages") == 0 for queue in queues)
