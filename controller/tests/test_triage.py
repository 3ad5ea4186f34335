"""What to do with a task that was just handed out."""

import pytest

from controller.outcomes import AwaitDuplicate, Cancel, Conflict, Fail, Ignore
from controller.runs import Run
from controller.triage import AskAll, Attach, Join, Start, before_start, triage
from runnerlib.contract import FailureCode, TaskState
from taskqueue.tasks import Delivery, Placement, TaskRow


@pytest.fixture
def delivery():
    def make(attempt=1, **more):
        return Delivery("t", "a", b"{}", "digest", attempt=attempt, receipt=None, **more)

    return make


@pytest.fixture
def row():
    def make(state="running", attempt=1, digest="digest", **more):
        return TaskRow("t", "a", b"{}", digest, TaskState(state), attempt, 0.0, 0.0, **more)

    return make


def test_task_that_nobody_has_seen_starts(delivery, row):
    assert triage(delivery(), None, None, 0) == Start()
    assert triage(delivery(), row(), None, 0) == Start()


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_task_that_has_ended_is_only_acknowledged(delivery, row, state):
    assert isinstance(triage(delivery(delivery_count=5), row(state), None, 0), Ignore)


def test_tombstone_is_met_by_the_task_that_comes_later(delivery, row):
    assert isinstance(triage(delivery(), row("cancelled", digest=""), None, 0), Ignore)


def test_other_content_under_the_same_id_is_an_id_conflict_and_changes_nothing(delivery, row):
    step = triage(delivery(), row("running", digest="other"), None, 0)
    assert isinstance(step, Conflict)
    assert "'t' is the id of another task" in step.message
    ours = Run(Delivery("t", "a", b"[]", "other", attempt=1, receipt=None))
    assert isinstance(triage(delivery(), None, ours, 0), Conflict)


def test_lower_attempt_than_the_row_is_stale(delivery, row):
    assert isinstance(triage(delivery(attempt=1), row("retrying", attempt=2), None, 0), Ignore)
    assert triage(delivery(attempt=2), row("retrying", attempt=2), None, 0) == Start()


def test_stale_message_of_another_sender_waits_for_the_outcome(delivery, row):
    newer = row("retrying", attempt=2, reply_to="a", correlation_id="1")
    assert isinstance(triage(delivery(reply_to="a", correlation_id="1"), newer, None, 0), Ignore)
    assert isinstance(triage(delivery(), newer, None, 0), Ignore)
    assert isinstance(triage(delivery(reply_to="a", correlation_id="2"), newer, None, 0), AwaitDuplicate)
    assert isinstance(triage(delivery(reply_to="b", correlation_id="1"), newer, None, 0), AwaitDuplicate)


def test_same_attempt_in_flight_here_is_joined(delivery, row):
    ours = Run(delivery())
    assert triage(delivery(delivery_count=1), row(), ours, 0) == Join(ours)


def test_placement_of_this_attempt_is_attached_to(delivery, row):
    placement = Placement("t", 1, "r1", "boot")
    assert triage(delivery(), row(placement=placement), None, 0) == Attach(placement)


def test_placement_of_an_earlier_attempt_is_no_placement(delivery, row):
    assert triage(delivery(attempt=2), row(attempt=2, placement=Placement("t", 1, "r1", "b")), None, 0) == Start()


def test_task_that_was_handed_out_before_is_asked_for(delivery, row):
    assert triage(delivery(delivery_count=1), row(), None, 0) == AskAll()


def test_cancelled_task_does_not_start_but_is_looked_for_when_it_may_run(delivery, row):
    assert triage(delivery(), row(cancel_requested=True), None, 0) == Cancel()
    assert triage(delivery(delivery_count=1), row(cancel_requested=True), None, 0) == AskAll()


def test_expired_task_does_not_start(delivery):
    step = triage(delivery(expires_at=10), None, None, 10)
    assert isinstance(step, Fail)
    assert step.code is FailureCode.EXPIRED
    assert triage(delivery(expires_at=10), None, None, 9) == Start()


def test_task_handed_out_twenty_times_without_a_run_is_given_up(delivery):
    assert triage(delivery(delivery_count=20), None, None, 0) == AskAll()
    step = before_start(delivery(delivery_count=20), cancelled=False, now=0)
    assert step.code is FailureCode.CONTROLLER_LOST
    assert before_start(delivery(delivery_count=19), cancelled=False, now=0) is None


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
@pytest.mark.parametrize("more", [{}, {"delivery_count": 1}, {"attempt": 2}, {"expires_at": -1.0}])
def test_broker_s_message_of_a_task_that_waits_in_the_store_never_starts_it(delivery, row, state, more):
    kept = row(state, reply_to="a", correlation_id="1", in_turn=True)
    assert isinstance(triage(delivery(**more), kept, None, 0), Ignore)
    assert isinstance(triage(delivery(reply_to="a", correlation_id="1", **more), kept, None, 0), Ignore)
    assert isinstance(triage(delivery(reply_to="b", correlation_id="1", **more), kept, None, 0), AwaitDuplicate)
    assert isinstance(triage(delivery(reply_to="a", correlation_id="2", **more), kept, None, 0), AwaitDuplicate)


def test_broker_s_message_with_the_id_of_another_task_in_the_store_is_a_conflict(delivery, row):
    assert isinstance(triage(delivery(), row("queued", digest="other", in_turn=True), None, 0), Conflict)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_broker_s_message_of_a_task_that_has_ended_in_the_store_is_only_acknowledged(delivery, row, state):
    assert isinstance(triage(delivery(reply_to="b"), row(state, in_turn=True), None, 0), Ignore)


def test_task_that_was_claimed_in_its_turn_starts(delivery, row):
    assert triage(delivery(in_turn=True), row("queued", in_turn=True), None, 0) == Start()
    assert triage(delivery(in_turn=True, delivery_count=1), row("queued", in_turn=True), None, 0) == AskAll()
    assert triage(delivery(in_turn=True, expires_at=-1.0), row("queued", in_turn=True), None, 0).code is (
        FailureCode.EXPIRED
    )
