"""What the broker is given; no broker is asked here."""

import time
from collections.abc import Sequence

import pytest

from producer.client import broker_sender
from producer.client.broker_sender import BrokerSender
from producer.client.steps import task_message
from taskqueue.tasks import NewTask

QUEUE = "amqp://guest:guest@127.0.0.1:9/"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[NewTask]:
    tasks: list[NewTask] = []

    def publish(_publisher: object, given: Sequence[NewTask]) -> None:
        tasks.extend(given)

    monkeypatch.setattr(broker_sender._Publisher, "publish", publish)
    return tasks


def test_group_delay_and_expiry_of_a_message_are_those_of_its_task(published: list[NewTask]) -> None:
    before = time.time()
    fields = {"delay_seconds": 60, "expires_seconds": 90, "group": "acme"}
    sent = [task_message(("upper", 1), "one", fields), task_message(("upper", 2), "two")]
    assert BrokerSender(QUEUE, patience_seconds=0).send(sent) == [None, None]
    one, two = published
    assert (one.id, one.group, one.waits_in_store) == ("one", "acme", True)
    assert one.not_before is not None and before + 60 <= one.not_before <= time.time() + 60
    assert one.expires_at == pytest.approx(one.not_before + 30)
    assert (two.group, two.not_before, two.expires_at, two.waits_in_store) == (None, None, None, False)


def test_messages_that_can_never_be_tasks_keep_no_other_from_the_broker(published: list[NewTask]) -> None:
    sent = [task_message(("upper", n), f"t{n}", {"group": group}) for n, group in enumerate(["a", "a b", "c"])]
    first, second, third = BrokerSender(QUEUE, patience_seconds=0).send(sent)
    assert first is third is None
    assert second is not None and "'group' must be 1 to 64" in str(second)
    assert [task.id for task in published] == ["t0", "t2"]
