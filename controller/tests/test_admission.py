"""Verdicts on what arrives in the ingress queue."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.admission import Forward, Park, Reject, Rules, check_rejection, judge, reject_unread
from controller.outcomes import Conflict, Fail, Ignore
from runnerlib.contract import FailureCode, TaskState, is_task_id, task_digest
from taskqueue.tasks import Arrival, TaskRow

NOW = 1000.0


def arrival(message, **more):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return Arrival(body, "receipt", **more)


def verdict(message, *, known=("echo",), is_sure=True, grace=600.0, max_bytes=1024, **more):
    rules = Rules(known, is_sure, grace, max_bytes, NOW)
    return judge(arrival(message, **more), rules, new_id=lambda: "new")


def task(**more):
    return {"algorithm": "echo", "payload": {"value": 1}, **more}


def test_refused_task_of_a_gateway_keeps_the_proof_of_its_owner():
    refused = verdict(task(), known=(), grace=0, seal="a1.00")
    assert isinstance(refused, Reject)
    assert refused.delivery.seal == "a1.00"


def test_known_algorithm_is_forwarded_with_a_new_id():
    found = verdict(task(), reply_to="answers", correlation_id="c")
    assert isinstance(found, Forward)
    assert (found.task.id, found.task.algorithm, found.task.payload) == ("new", "echo", b'{"value":1}')
    assert found.task.digest == task_digest("echo", {"value": 1})
    assert (found.task.reply_to, found.task.correlation_id, found.task.expires_at) == ("answers", "c", None)


def test_id_is_the_message_s_own_then_the_property_then_a_new_one():
    assert verdict(task(id="body"), message_id="property").task.id == "body"
    assert verdict(task(), message_id="property").task.id == "property"
    assert verdict(task(), message_id="").task.id == "new"


def test_ids_are_random_by_default():
    rules = Rules(["echo"], True, 600, 1024, NOW)
    ids = {judge(arrival(task()), rules).task.id for _ in range(2)}
    assert len(ids) == 2
    assert all(is_task_id(each) for each in ids)


@pytest.mark.parametrize("property_id", ["a b", "x" * 129, "ä"])
def test_bad_property_id_is_refused_unless_the_message_has_its_own(property_id):
    refused = verdict(task(), message_id=property_id)
    assert isinstance(refused, Reject)
    assert (refused.code, refused.delivery.id) == (FailureCode.MALFORMED, "new")
    assert "'message_id'" in refused.message
    assert isinstance(verdict(task(id="t"), message_id=property_id), Forward)


@pytest.mark.parametrize(
    ("message", "task_id", "algorithm"),
    [
        (b"no JSON", "property", ""),
        (b"\xff\xfe", "property", ""),
        ([1, 2], "property", ""),
        ({"payload": {}, "id": "t1"}, "t1", ""),
        ({"algorithm": "Echo", "payload": {}, "id": "t1"}, "t1", ""),
        ({"algorithm": "echo", "id": "t1"}, "t1", "echo"),
        ({"algorithm": "echo", "payload": {}, "id": "no id"}, "property", "echo"),
        ({"algorithm": "echo", "payload": {}, "id": 7}, "property", "echo"),
        ({"algorithm": "echo", "payload": {}, "priority": 3}, "property", "echo"),
        ({"algorithm": "echo", "payload": {}, "expires_seconds": -1}, "property", "echo"),
    ],
)
def test_malformed_message_is_refused_under_the_id_it_claims(message, task_id, algorithm):
    refused = verdict(message, message_id="property", headers={"x": "y"}, reply_to="answers", correlation_id="c")
    assert isinstance(refused, Reject)
    assert refused.code is FailureCode.MALFORMED
    delivery = refused.delivery
    body = arrival(message).body
    assert (delivery.id, delivery.algorithm, delivery.payload) == (task_id, algorithm, b"null")
    assert (delivery.body, delivery.headers, delivery.receipt) == (body, {"x": "y"}, "receipt")
    assert delivery.digest == hashlib.sha256(body).hexdigest()
    assert (delivery.reply_to, delivery.correlation_id) == ("answers", "c")


def test_message_over_the_limit_is_too_large_and_is_not_even_read():
    refused = verdict(task(id="t1", text="x" * 1024), message_id="property")
    assert isinstance(refused, Reject)
    assert (refused.code, refused.delivery.id, refused.delivery.algorithm) == (FailureCode.TOO_LARGE, "property", "")


def test_of_a_message_over_the_limit_the_beginning_and_the_digest_are_kept():
    body = json.dumps(task(text="x" * 10_000)).encode()
    refused = verdict(body, headers={"x": "y", "body_sha256": "a lie"})
    assert isinstance(refused, Reject)
    assert refused.delivery.body == body[:4096]
    digest = hashlib.sha256(body).hexdigest()
    assert refused.delivery.headers == {"x": "y", "body_bytes": len(body), "body_sha256": digest}
    assert refused.delivery.digest == digest
    assert refused.arrival.body == body


@pytest.mark.parametrize("name", ["tasks", "tasks.echo", "tasks-retry.5s"])
def test_answers_are_never_sent_to_our_own_queues(name):
    refused = verdict(task(), reply_to=name)
    assert isinstance(refused, Reject)
    assert refused.code is FailureCode.MALFORMED
    assert "'reply_to'" in refused.message
    assert refused.delivery.reply_to is None
    assert verdict(b"no JSON", reply_to=name).delivery.reply_to is None


def test_correlation_id_that_was_no_text_is_refused():
    assert isinstance(verdict(task(), correlation_id="ä" * 127), Forward)
    refused = verdict(task(), correlation_id="\ufffd" * 255)
    assert isinstance(refused, Reject)
    assert "'correlation_id'" in refused.message


def test_unknown_algorithm_is_parked_at_first_sight_and_within_the_grace():
    assert isinstance(verdict(task(), known=()), Park)
    parked = verdict(task(), known=(), first_seen_at=NOW - 599)
    assert isinstance(parked, Park)
    assert parked.task.id == "new"


def test_unknown_algorithm_fails_after_the_grace_and_names_near_ones():
    refused = verdict(task(), known=("ecko", "other"), first_seen_at=NOW - 600)
    assert isinstance(refused, Reject)
    assert refused.code is FailureCode.UNKNOWN_ALGORITHM
    assert "did you mean 'ecko'?" in refused.message
    assert refused.delivery.payload == b'{"value":1}'


def test_nothing_is_unknown_while_the_catalogue_is_not_sure():
    assert isinstance(verdict(task(), known=(), is_sure=False, first_seen_at=NOW - 6000), Park)


def test_expiry_counts_from_the_first_sight_which_is_carried_on():
    assert verdict(task(expires_seconds=5)).task.expires_at == NOW + 5
    assert verdict(task(expires_seconds=5), expires_at=NOW + 1).task.expires_at == NOW + 1
    assert verdict(task(expires_seconds=5), known=()).task.expires_at == NOW + 5


@pytest.mark.parametrize("known", [("echo",), ()])
def test_expired_task_is_refused(known):
    refused = verdict(task(expires_seconds=5), expires_at=NOW, known=known)
    assert isinstance(refused, Reject)
    assert refused.code is FailureCode.EXPIRED


def test_what_the_broker_gave_up_fails_with_its_reason_and_attempt():
    refused = verdict(task(id="t1"), dead_reason="delivery_limit in queue tasks.echo", attempt=3)
    assert isinstance(refused, Reject)
    assert (refused.code, refused.delivery.attempt) == (FailureCode.CONTROLLER_LOST, 3)
    assert "delivery_limit in queue tasks.echo" in refused.message
    assert refused.delivery.payload == b'{"value":1}'


def test_message_that_ended_twenty_controllers_is_given_up():
    assert isinstance(verdict(task(), delivery_count=19), Forward)
    assert verdict(task(), delivery_count=20).code is FailureCode.CONTROLLER_LOST


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=20)))
def test_every_message_gets_a_verdict_under_a_good_id(body, message_id):
    found = verdict(body, message_id=message_id)
    assert is_task_id(found.task.id)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("echo"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["id", "algorithm", "payload", "expires_seconds"]), VALUES))
def test_every_envelope_gets_a_verdict(fields):
    assert is_task_id(verdict(json.dumps(fields).encode()).task.id)


def row(state="running", digest=None, **more):
    digest = verdict(task(id="t1")).task.digest if digest is None else digest
    return TaskRow("t1", "echo", b"{}", digest, TaskState(state), 1, 0.0, 0.0, **more)


def expired():
    return verdict(task(id="t1"), expires_at=NOW)


def test_refusal_of_a_task_that_nobody_knows_fails_it():
    assert check_rejection(expired(), None) == Fail(FailureCode.EXPIRED, expired().message)
    assert isinstance(check_rejection(expired(), row("queued")), Fail)
    assert isinstance(check_rejection(expired(), row("retrying")), Fail)


def test_refusal_changes_no_task_that_has_ended():
    assert isinstance(check_rejection(expired(), row("succeeded")), Ignore)
    assert isinstance(check_rejection(expired(), row("cancelled", digest="")), Ignore)


def test_refusal_under_another_task_s_id_fails_alone():
    malformed = reject_unread(arrival({"id": "t1"}), FailureCode.MALFORMED, "'payload' is missing")
    for state in ("queued", "running", "succeeded"):
        decision = check_rejection(malformed, row(state))
        assert isinstance(decision, Conflict)
        assert "'payload' is missing" in decision.message


def test_repetition_that_came_too_late_joins_the_run_that_was_in_time():
    assert check_rejection(expired(), row("running")) == Forward(expired().arrival, expired().task)
