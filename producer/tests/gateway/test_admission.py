"""What becomes of a message's fields, without a gateway."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from producer.gateway.admission import Admission, Refused
from producer.gateway.problem_codes import ProblemCode
from runnerlib.contract import Catalogue
from taskqueue.tasks import NewTask

NOW = 1_780_000_000.0


@dataclass
class View:
    """Discovery has not answered yet."""

    catalogue: Catalogue | None = None
    is_sure: bool = False


def message(**more: Any) -> bytes:
    return json.dumps({"algorithm": "upper", "payload": {"text": "a"}, **more}).encode()


@pytest.fixture
def admission() -> Admission:
    return Admission(View(), 1000)


def task_of(admitted: NewTask | Refused) -> NewTask:
    assert isinstance(admitted, NewTask)
    return admitted


def test_delay_and_expiry_count_from_the_submission(admission: Admission) -> None:
    task = task_of(admission.one(message(delay_seconds=60, expires_seconds=90, group="acme"), NOW))
    assert (task.not_before, task.expires_at, task.group) == (NOW + 60, NOW + 90, "acme")
    assert task.waits_in_store


@pytest.mark.parametrize("more", [{}, {"delay_seconds": 0}, {"delay_seconds": None, "group": None}])
def test_task_without_a_group_and_a_delay_has_neither(admission: Admission, more: dict[str, Any]) -> None:
    task = task_of(admission.one(message(**more), NOW))
    assert (task.not_before, task.group, task.waits_in_store) == (None, None, False)


def test_each_message_of_a_batch_has_its_own_group_and_delay(admission: Admission) -> None:
    lines = [message(group="a"), message(delay_seconds=5), message(group="no spaces")]
    for body, in_lines in ((b"\n".join(lines), True), (b"[" + b",".join(lines) + b"]", False)):
        batch = admission.batch(body, NOW, in_lines=in_lines)
        assert isinstance(batch, list)
        first, second = map(task_of, batch[:2])
        assert (first.group, first.not_before, second.group, second.not_before) == ("a", None, None, NOW + 5)
        assert isinstance(batch[2], Refused) and "'group' must be 1 to 64" in batch[2].message


def test_payload_alone_is_the_task_of_a_message_with_the_same_fields(admission: Admission) -> None:
    fields = {"delay_seconds": 60, "expires_seconds": 90, "group": "acme"}
    alone = task_of(admission.payload("upper", b'{"text": "a"}', NOW, "mine", fields))
    assert alone == task_of(admission.one(message(id="mine", **fields), NOW))
    assert task_of(admission.payload("upper", b'{"text": "a"}', NOW)).group is None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"delay_seconds": 60, "expires_seconds": 60}, "'expires_seconds' must be more than 'delay_seconds'"),
        ({"delay_seconds": 604_801}, "'delay_seconds' must be a number of seconds from 0 to 604800"),
        ({"group": "a/b"}, "'group' must be 1 to 64"),
    ],
)
def test_what_the_fields_cannot_be_is_malformed(admission: Admission, more: dict[str, Any], sentence: str) -> None:
    refused = admission.one(message(id="mine", **more), NOW)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.id) == (ProblemCode.MALFORMED, "mine")
    assert sentence in refused.message
