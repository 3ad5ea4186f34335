"""Tasks as somebody sends them who has a client for AMQP and one for HTTP, and nothing of ours."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pika
import requests
from environments import until
from pika.adapters.blocking_connection import BlockingChannel

#: What the gateway looks up in one call.
_AT_ONCE = 100
ENDED = ("succeeded", "failed", "cancelled")


@contextmanager
def channel_to(queue_url: str) -> Iterator[BlockingChannel]:
    """A channel whose publishes are confirmed."""
    parameters = pika.URLParameters(queue_url)
    # So that whoever waits for a broker that does not answer ends, too.
    parameters.heartbeat = 10
    parameters.blocked_connection_timeout = 30
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def publish(channel: BlockingChannel, task_id: str, message: dict[str, Any], reply_to: str | None = None) -> None:
    """To the ingress queue; returns when the broker has it."""
    properties = pika.BasicProperties(message_id=task_id, reply_to=reply_to, delivery_mode=2)
    channel.basic_publish("", "tasks", json.dumps(message).encode(), properties, mandatory=True)


class Gateway:
    """`token`: of the administrator."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"}

    def run(self, algorithm: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Sends a task and waits for its end."""
        answer = requests.post(
            f"{self.url}/algorithms/{algorithm}/run",
            json=payload,
            headers={**self.headers, "Prefer": "wait=60"},
            timeout=80,
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def task(self, task_id: str, wait_seconds: int = 0) -> dict[str, Any]:
        headers = {**self.headers, "Prefer": f"wait={wait_seconds}"} if wait_seconds else self.headers
        answer = requests.get(f"{self.url}/tasks/{task_id}", headers=headers, timeout=wait_seconds + 20)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def algorithms(self) -> set[str]:
        """The names of those that can be asked for."""
        answer = requests.get(f"{self.url}/algorithms", headers=self.headers, timeout=10)
        answer.raise_for_status()
        return {each["name"] for each in answer.json()["algorithms"]}

    def runners_of(self, algorithm: str) -> list[str]:
        """The names of those that offer it now."""
        answer = requests.get(f"{self.url}/algorithms/{algorithm}", headers=self.headers, timeout=10)
        return [each["id"] for each in answer.json()["runners"]] if answer.status_code == 200 else []

    def found(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Those of these tasks that have a row, with their results."""
        views: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), _AT_ONCE):
            asked = list(ids[start : start + _AT_ONCE])
            while asked:
                answer = requests.post(
                    f"{self.url}/tasks/lookup", json={"ids": asked}, headers=self.headers, timeout=30
                )
                answer.raise_for_status()
                page = answer.json()
                views |= {view["id"]: view for view in page["tasks"]}
                asked = page["left_out"]
        return views

    def all_ended(self, ids: Iterable[str], within_seconds: float = 120.0) -> dict[str, dict[str, Any]]:
        """Waits until each of them has ended; they by their ids."""
        wanted = list(ids)
        ended: dict[str, dict[str, Any]] = {}

        def looked() -> bool:
            views = self.found([one for one in wanted if one not in ended])
            ended.update({one: view for one, view in views.items() if view["state"] in ENDED})
            return len(ended) == len(wanted)

        try:
            until(looked, "all tasks have ended", within_seconds)
        except AssertionError:
            missing = [one for one in wanted if one not in ended]
            raise AssertionError(f"{len(missing)} of {len(wanted)} have not ended: {self.found(missing[:5])}") from None
        return ended

    def dead_letters(self) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/dead", headers=self.headers, timeout=20)
        answer.raise_for_status()
        return list(answer.json()["dead_letters"])
