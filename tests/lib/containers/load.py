"""Tasks sent all the time, by the broker and by the gateway, while something is done to the environment."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import requests
from environments import until
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from containers.messages import Gateway, channel_to, publish

#: Together about 25 tasks a second.
_BROKER_PAUSE_SECONDS = 0.05
_GATEWAY_PAUSE_SECONDS = 0.15
#: Before whatever could not be reached is tried again.
_RETRY_SECONDS = 0.2
#: Of a task that takes a second, so that some run whenever something happens.
_EVERY_SLOW = 25
UNAVAILABLE = 503
_POLISH = "W niedzielę pojechaliśmy rowerami wzdłuż rzeki aż do młyna."


@dataclass(frozen=True)
class Task:
    algorithm: str
    payload: dict[str, Any]
    expected: Callable[[Any], bool]

    @property
    def message(self) -> dict[str, Any]:
        return {"algorithm": self.algorithm, "payload": self.payload}


def tasks(word: str) -> Iterator[tuple[str, Task]]:
    """Ids and tasks, without end, for both light runners."""
    for number in count():
        task_id = f"{word}-{number}"
        if number % _EVERY_SLOW == _EVERY_SLOW - 1:
            yield task_id, Task("countdown", {"seconds": 1}, lambda result: result == "lift-off after 1 s")
        elif number % 2:
            yield task_id, Task("language_detection", {"text": _POLISH}, lambda result: result["language"] == "pl")
        else:
            shout = task_id.upper()
            yield task_id, Task("upper", {"text": task_id}, lambda result, shout=shout: bool(result == shout))


@dataclass
class Load:
    """A context: sends until it ends. Each task is sent again, under its id, until it is accepted."""

    name: str
    queue_url: str
    gateway: Gateway
    #: accepted ones, by id; each is written by one thread
    by_broker: dict[str, Task] = field(default_factory=dict)
    by_gateway: dict[str, Task] = field(default_factory=dict)
    #: every answer that came to the reply queue, by id
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    #: what the gateway said to tasks that it should have taken
    refusals: list[str] = field(default_factory=list)
    #: how often something could not be reached
    troubles: int = 0

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._reading = threading.Event()
        self._senders = [
            threading.Thread(target=self._by_broker, args=(tasks(f"{self.name}-amqp"),), daemon=True),
            threading.Thread(target=self._by_gateway, args=(tasks(f"{self.name}-http"),), daemon=True),
        ]
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __str__(self) -> str:
        again = sum(len(answers) - 1 for answers in self.answers.values())
        return (
            f"{len(self.by_broker)} tasks by the broker, {len(self.by_gateway)} by the gateway; "
            f"{again} answers came again, {self.troubles} times nobody was reached"
        )

    @property
    def replies(self) -> str:
        """A replicated queue keeps answers over a restart of the broker."""
        return f"replies-of-{self.name}"

    @property
    def accepted(self) -> dict[str, Task]:
        return {**self.by_broker, **self.by_gateway}

    def __enter__(self) -> "Load":
        with channel_to(self.queue_url) as channel:
            channel.queue_declare(self.replies, durable=True, arguments={"x-queue-type": "quorum"})
        for thread in (*self._senders, self._reader):
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._ending.set()
        for thread in self._senders:
            thread.join(60)
        if failure[0] is not None:
            self._stop_reading()
        assert not any(thread.is_alive() for thread in self._senders), (
            "a sender still waits for the broker or the gateway"
        )

    def flow(self, more: int = 40, within_seconds: float = 60.0) -> None:
        """Waits until so many more have been accepted at each door, and those have been answered."""
        before = set(self.accepted)
        wanted = (len(self.by_broker) + more, len(self.by_gateway) + more // 3)

        def flowed() -> bool:
            return len(self.by_broker) >= wanted[0] and len(self.by_gateway) >= wanted[1]

        until(flowed, f"{more} more tasks accepted; so far {len(before)}", within_seconds)
        self.gateway.all_ended(set(self.accepted) - before, within_seconds)

    def check(self, within_seconds: float = 120.0) -> dict[str, dict[str, Any]]:
        """Every accepted task has ended once, with its own result, and each of the broker's was answered so."""
        assert self.refusals == []
        accepted = self.accepted
        views = self.gateway.all_ended(accepted, within_seconds)
        for task_id, view in views.items():
            assert view["state"] == "succeeded", view
            assert accepted[task_id].expected(view["result"]), view
        until(lambda: self.answers.keys() >= self.by_broker.keys(), "every answer came", within_seconds)
        self._stop_reading()
        assert self.answers.keys() == self.by_broker.keys(), "answers to tasks that nobody sent"
        for task_id, answers in self.answers.items():
            for answer in answers:
                assert answer["state"] == "succeeded", answer
                assert answer["result"] == views[task_id]["result"], (answer, views[task_id])
        assert self.gateway.dead_letters() == []
        return views

    def _stop_reading(self) -> None:
        self._reading.set()
        self._reader.join(30)
        with channel_to(self.queue_url) as channel:
            channel.queue_delete(self.replies)

    def _by_broker(self, endless: Iterator[tuple[str, Task]]) -> None:
        task_id, task = next(endless)
        while not self._ending.is_set():
            # A task may have arrived although its confirm did not: so it keeps its id.
            with contextlib.suppress(AMQPError, OSError), channel_to(self.queue_url) as channel:
                while not self._ending.wait(_BROKER_PAUSE_SECONDS):
                    publish(channel, task_id, task.message, self.replies)
                    self.by_broker[task_id] = task
                    task_id, task = next(endless)
                return
            self.troubles += 1
            self._ending.wait(_RETRY_SECONDS)

    def _by_gateway(self, endless: Iterator[tuple[str, Task]]) -> None:
        task_id, task = next(endless)
        while not self._ending.wait(_GATEWAY_PAUSE_SECONDS):
            with contextlib.suppress(requests.RequestException):
                answer = requests.post(
                    f"{self.gateway.url}/algorithms/{task.algorithm}/tasks",
                    json=task.payload,
                    headers={**self.gateway.headers, "Idempotency-Key": task_id},
                    timeout=15,
                )
                if answer.ok:
                    self.by_gateway[task_id] = task
                elif answer.status_code != UNAVAILABLE:
                    self.refusals.append(answer.text)
                if answer.status_code != UNAVAILABLE:
                    task_id, task = next(endless)
                    continue
            self.troubles += 1

    def _read(self) -> None:
        while not self._reading.is_set():
            with contextlib.suppress(AMQPError, OSError), channel_to(self.queue_url) as channel:
                self._read_from(channel)
            self._reading.wait(_RETRY_SECONDS)

    def _read_from(self, channel: BlockingChannel) -> None:
        for method, _, body in channel.consume(self.replies, inactivity_timeout=0.2):
            if method is not None:
                answer = json.loads(body)
                self.answers.setdefault(answer["id"], []).append(answer)
                channel.basic_ack(method.delivery_tag)
            if self._reading.is_set():
                return
