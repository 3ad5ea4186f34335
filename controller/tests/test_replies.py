"""What senders are told."""

import json

import pytest

from controller.replies import replies_to, senders, wants_reply
from controller.runs import Run
from runnerlib.contract import FailureCode, TaskState
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from taskqueue.tasks import Cancelled, Conflicting, Delivery, Failed, Retrying, Succeeded, TaskRow


def delivery(reply_to="answers", correlation_id="c", **more):
    return Delivery(
        "t1",
        "echo",
        b"{}",
        "d",
        attempt=2,
        receipt=1,
        reply_to=reply_to,
        correlation_id=correlation_id,
        **more,
    )


def answers(source, run=None):
    return [
        (each.reply_to, each.correlation_id, json.loads(each.body))
        for each in replies_to(run or Run(delivery()), source)
    ]


def test_result_is_passed_on_as_it_was_written():
    (reply,) = replies_to(Run(delivery()), Succeeded(delivery(), b'{"a": 1.0,  "b":"\xc3\xa4"}'))
    assert reply.body == (
        b'{"id":"t1","algorithm":"echo","state":"succeeded","attempt":2,"result":{"a": 1.0,  "b":"\xc3\xa4"}}'
    )
    assert (reply.reply_to, reply.correlation_id) == ("answers", "c")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            Failed(delivery(), FailureCode.HANDLER_ERROR, "no", traceback="secret"),
            {"state": "failed", "error": {"code": "handler_error", "message": "no"}},
        ),
        (Conflicting(delivery(), "used"), {"state": "failed", "error": {"code": "id_conflict", "message": "used"}}),
        (Cancelled(delivery()), {"state": "cancelled"}),
    ],
)
def test_own_outcome_is_told_without_its_traceback(record, told):
    assert answers(record) == [("answers", "c", {"id": "t1", "algorithm": "echo", "attempt": 2, **told})]


def test_retry_is_no_answer():
    assert answers(Retrying(delivery(), FailureCode.TIMEOUT, "slow", 1.0)) == []


@pytest.mark.parametrize(
    ("state", "more", "told"),
    [
        ("succeeded", {"result": b"7"}, {"state": "succeeded", "result": 7}),
        ("succeeded", {"result": b"null"}, {"state": "succeeded", "result": None}),
        (
            "failed",
            {"error_code": FailureCode.TIMEOUT, "error_message": "slow"},
            {"state": "failed", "error": {"code": "timeout", "message": "slow"}},
        ),
        ("cancelled", {}, {"state": "cancelled"}),
    ],
)
def test_outcome_on_record_is_told_with_its_attempt(state, more, told):
    row = TaskRow("t1", "echo", b"{}", "d", TaskState(state), 3, 0.0, 0.0, **more)
    assert answers(row) == [("answers", "c", {"id": "t1", "algorithm": "echo", "attempt": 3, **told})]


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
def test_task_that_has_not_ended_is_not_answered(state):
    assert answers(TaskRow("t1", "echo", b"{}", "d", TaskState(state), 3, 0.0, 0.0)) == []


def test_every_sender_of_a_run_is_answered_once():
    run = Run(delivery())
    run.repeated += [delivery(), delivery("others"), delivery("answers", "c2"), delivery(None), delivery("others")]
    told = [(to, correlation) for to, correlation, _ in answers(Succeeded(run.delivery, b"1"), run)]
    assert told == [("answers", "c"), ("others", "c"), ("answers", "c2")]
    assert senders(run.deliveries)[0] is run.delivery


def test_run_that_nobody_waits_for_asks_for_nothing():
    run = Run(delivery(None))
    assert not wants_reply(run)
    assert answers(Succeeded(run.delivery, b"1"), run) == []
    run.repeated.append(delivery())
    assert wants_reply(run)


def test_result_that_no_message_can_hold_is_left_to_the_gateway():
    result = b'"' + b"x" * MAX_MESSAGE_BYTES + b'"'
    ((_, _, told),) = answers(Succeeded(delivery(), result))
    assert (told["state"], told["error"]["code"]) == ("succeeded", "too_large")
    assert "result" not in told
