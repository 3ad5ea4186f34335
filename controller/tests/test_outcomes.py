"""What follows from an outcome, without anything around it."""

import random
import time
from datetime import UTC, datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import BadAnswer, Busy, Draining, LostAfterSending, NotSent, Refused
from controller.outcomes import (
    BAD_ANSWERS_BUDGET,
    LOST_RUNNERS_BUDGET,
    RUNNER_PAUSE_SECONDS,
    Cancel,
    Done,
    Fail,
    OutcomePolicy,
    Retry,
    StartAgain,
    Unconfirmed,
    deadline,
    pause_seconds,
    reason_to_take_away,
    unreadable,
)
from controller.runner_answers import Entry
from controller.runs import Run
from runnerlib.contract import EntryState, FailureCode, HistoryEntry, Limits, Problem, RunError
from taskqueue.tasks import Delivery

STEPS = (1.0, 5.0, 30.0, 120.0, 600.0)


@pytest.fixture
def policy():
    return OutcomePolicy(STEPS, random.Random(1), lambda: 1000.0)


@pytest.fixture
def outcome(policy):
    def call(
        state="failed",
        code="handler_error",
        retryable=False,
        past=(),
        expires_at=None,
        limits=None,
        cancel_requested=False,
        **fields,
    ):
        if state == "failed":
            fields["error"] = RunError(code=code, message="why", retryable=retryable, traceback="tb")
        entry = Entry(EntryState(state), **fields)
        return policy.decide(
            run(*past, expires_at=expires_at, cancel_requested=cancel_requested), entry, limits or Limits()
        )

    return call


def run(*codes, whole_runner=False, expires_at=None, **more):
    """A run whose earlier attempts failed so."""
    history = [
        HistoryEntry(attempt=n + 1, code=FailureCode(each), message="", at=datetime.now(UTC), whole_runner=whole_runner)
        for n, each in enumerate(codes)
    ]
    delivery = Delivery("t", "a", b"{}", "d", attempt=1, receipt=None, expires_at=expires_at)
    return Run(delivery, history=tuple(history), **more)


def problem(status, code=""):
    return Problem(title="t", status=status, code=code, detail="no")


def test_success_is_done_with_its_result(outcome):
    assert outcome("succeeded", result=b'{"a":1}') == Done(b'{"a":1}')
    assert outcome("succeeded", result=b"null") == Done(b"null")


def test_success_without_a_result_field_is_a_bad_result(outcome):
    assert outcome("succeeded").code is FailureCode.BAD_RESULT


def test_result_over_its_limit_is_a_bad_result_that_tells_the_limit(outcome):
    decision = outcome("succeeded", result=b'"%b"' % (b"x" * 50), limits=Limits(result_bytes=40))
    assert decision.code is FailureCode.BAD_RESULT
    assert "52 bytes, the limit is 40" in decision.message


def test_no_limit_of_a_registration_is_above_ours(outcome):
    decision = outcome("succeeded", result=b"1" * (16 * 1024 * 1024 + 1), limits=Limits(result_bytes=10**15))
    assert decision.code is FailureCode.BAD_RESULT


def test_runner_that_does_not_have_a_run_costs_nothing(outcome):
    assert isinstance(outcome("unknown"), StartAgain)


def test_cancel_of_the_store_is_believed(outcome):
    assert outcome("cancelled", cancel_requested=True) == Cancel()


def test_what_only_the_store_can_know_is_a_claim(outcome):
    assert outcome("cancelled") == Unconfirmed("it was cancelled", cancelled=True)
    assert isinstance(outcome("stale_attempt"), Unconfirmed)
    assert isinstance(outcome(code="id_conflict"), Unconfirmed)


def test_expiry_is_believed_when_the_time_is_over(outcome):
    assert isinstance(outcome(code="expired"), Unconfirmed)
    assert isinstance(outcome(code="expired", expires_at=1002.0), Unconfirmed)
    assert outcome(code="expired", expires_at=1000.5).code is FailureCode.EXPIRED


@pytest.mark.parametrize("code", ["invalid_payload", "bad_result", "handler_error"])
def test_permanent_failures_are_never_retried(outcome, code):
    assert outcome(code=code) == Fail(FailureCode(code), "why", "tb")


def test_payload_that_a_runner_finds_too_large_can_be_replayed(outcome):
    assert outcome(code="too_large") == Fail(FailureCode.INVALID_PAYLOAD, "why", "tb")


def test_retryable_mark_changes_nothing_for_what_is_permanent(outcome):
    for code in ("invalid_payload", "bad_result", "too_large"):
        assert isinstance(outcome(code=code, retryable=True), Fail)


def test_transient_handler_error_is_retried_at_a_step(outcome):
    decision = outcome(retryable=True)
    assert isinstance(decision, Retry)
    assert decision.after_seconds in (1.0, 5.0)


def test_timeout_is_retried_whatever_the_runner_says(outcome):
    assert isinstance(outcome(code="timeout", retryable=False), Retry)


def test_handler_failures_and_timeouts_share_one_budget(outcome):
    past = ("handler_error", "timeout")
    assert isinstance(outcome(code="timeout", past=past, limits=Limits(retries=3)), Retry)
    assert isinstance(outcome(retryable=True, past=(*past, "timeout"), limits=Limits(retries=3)), Fail)


def test_no_retries_means_no_retry(outcome):
    assert isinstance(outcome(retryable=True, limits=Limits(retries=0)), Fail)


def test_first_death_of_its_process_is_retried_and_the_second_fails(outcome):
    assert isinstance(outcome(code="runner_lost"), Retry)
    assert outcome(code="runner_lost", past=("runner_lost",)).code is FailureCode.RUNNER_LOST


def test_whole_runners_may_be_lost_more_often_with_growing_delays(policy):
    decisions = [
        policy.runner_lost(run(*["runner_lost"] * before, whole_runner=True), "gone", sole_run=True)
        for before in range(LOST_RUNNERS_BUDGET)
    ]
    assert all(isinstance(each, Retry) and each.whole_runner for each in decisions[:-1])
    assert decisions[3].after_seconds > decisions[0].after_seconds
    assert decisions[-1].code is FailureCode.RUNNER_LOST
    assert "gone" in decisions[-1].message


def test_deaths_of_a_process_and_losses_of_runners_have_separate_budgets(outcome, policy):
    others = run(*["runner_lost"] * 4)
    assert isinstance(policy.runner_lost(others, "gone", sole_run=True), Retry)
    lost = run(*["runner_lost"] * 4, whole_runner=True)
    entry = Entry(EntryState.FAILED, error=RunError(code="runner_lost", message="killed"))
    assert isinstance(policy.decide(lost, entry, Limits()), Retry)


def test_loss_of_a_whole_runner_with_several_tasks_is_charged_to_nobody(policy):
    decision = policy.runner_lost(run("runner_lost"), "gone", sole_run=False)
    assert decision == StartAgain("the runner was lost with several tasks in one call", isolated=True)


def test_runner_that_was_stopped_in_order_costs_nothing(policy):
    assert isinstance(policy.runner_lost(run(), "gone", sole_run=True, has_left=True), StartAgain)


def test_what_is_not_believed_starts_again_then_as_further_attempts_and_fails_in_the_end(policy):
    def doubt(disbelieved_answers, *past):
        return policy.disbelieved(run(*past, disbelieved_answers=disbelieved_answers), "it is stale")

    assert isinstance(doubt(0), StartAgain)
    assert doubt(1).code is FailureCode.BAD_RESULT
    assert isinstance(doubt(1), Retry)
    assert isinstance(doubt(1, "runner_lost", "timeout", "bad_result"), Retry)
    last = doubt(1, *["bad_result"] * (BAD_ANSWERS_BUDGET - 1))
    assert (type(last), last.code) == (Fail, FailureCode.BAD_RESULT)
    assert "it is stale, of which the store knows nothing" in last.message


def test_answer_that_cannot_be_read_is_tried_once_more(policy):
    garbled, deliberate = BadAnswer("no JSON"), BadAnswer("too large", would_repeat=True)
    assert isinstance(unreadable(garbled, disbelieved_answers=0, sole_run=True), StartAgain)
    assert unreadable(garbled, disbelieved_answers=1, sole_run=True) == Fail(FailureCode.BAD_RESULT, "no JSON")
    assert unreadable(deliberate, disbelieved_answers=0, sole_run=True) == Fail(FailureCode.BAD_RESULT, "too large")
    assert unreadable(deliberate, disbelieved_answers=1, sole_run=False).isolated, "whose fault it is, is not known"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Busy("busy", 0.3), 0.3),
        (Draining("draining"), RUNNER_PAUSE_SECONDS),
        (LostAfterSending("cut"), RUNNER_PAUSE_SECONDS),
        (Refused(problem(404)), RUNNER_PAUSE_SECONDS),
        (NotSent("nobody there"), None),
        (BadAnswer("no JSON"), None),
        (Refused(problem(422)), None),
    ],
)
def test_failed_call_is_a_reason_for_the_runner_to_rest_or_not(policy, error, seconds):
    assert pause_seconds(error) == seconds
    decision = policy.call_failed(run(), error, Limits(), sole_run=False)
    assert isinstance(decision, StartAgain), "nobody is charged for a call with several tasks"
    assert decision.isolated == (seconds is None and not isinstance(error, NotSent))
    assert decision.expected == isinstance(error, Busy)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (422, "", Fail(FailureCode.INVALID_PAYLOAD, "no")),
        (413, "", Fail(FailureCode.INVALID_PAYLOAD, "no")),
        (500, "", Fail(FailureCode.HANDLER_ERROR, "no")),
        (409, "cancelled", Unconfirmed("it was cancelled", cancelled=True)),
        (409, "id_conflict", Unconfirmed("it knows another task by this id and attempt")),
    ],
)
def test_refusal_of_a_single_task_counts_as_its_failure(policy, status, code, expected):
    assert policy.call_failed(run(), Refused(problem(status, code)), Limits(), sole_run=True) == expected


def test_run_is_overdue_when_it_is_called_running_for_longer_than_its_call_can_take():
    limits = Limits(timeout_seconds=10, batch=4)
    alone = deadline(limits, [limits], members=1, margin_seconds=5)
    assert reason_to_take_away(alone, limits, running_seconds=25, sent_seconds=25) is None
    assert "time limit of 10 s" in reason_to_take_away(alone, limits, running_seconds=26, sent_seconds=26)
    batch = deadline(limits, [limits], members=4, margin_seconds=5)
    assert reason_to_take_away(batch, limits, running_seconds=55, sent_seconds=55) is None


def test_waiting_run_is_overdue_when_all_that_may_be_before_it_is_over():
    limits, slower = Limits(timeout_seconds=10, batch=1), Limits(timeout_seconds=100, batch=2)
    allowed = deadline(limits, [limits, slower], members=1, margin_seconds=5)
    assert reason_to_take_away(allowed, limits, running_seconds=None, sent_seconds=25 + 600) is None
    assert "waiting for 626 s" in reason_to_take_away(allowed, limits, running_seconds=None, sent_seconds=626)
    assert reason_to_take_away(allowed, limits, running_seconds=1, sent_seconds=inf) is not None


def test_lost_runners_and_handler_failures_have_separate_budgets(outcome):
    assert isinstance(outcome(code="runner_lost", past=("timeout",) * 3), Retry)
    assert isinstance(outcome(retryable=True, past=("runner_lost", "timeout", "timeout")), Retry)


def test_retry_that_could_only_start_after_the_deadline_is_expired_now(outcome):
    decision = outcome(retryable=True, expires_at=1000.5)
    assert decision.code is FailureCode.EXPIRED
    assert "why" in decision.message


def test_code_that_no_runner_may_say_is_a_handler_error(outcome):
    for code in ("whatever", "controller_lost", "unknown_algorithm"):
        assert outcome(code=code).code is FailureCode.HANDLER_ERROR


def test_unfinished_entry_is_refused(outcome):
    with pytest.raises(ValueError, match="not final"):
        outcome("running")


@given(st.integers(0, 20), st.integers())
def test_delay_is_always_a_step_and_at_most_one_off(failures, seed):
    delay = OutcomePolicy(STEPS, random.Random(seed), time.time).delay_seconds(failures)
    own = min(failures, len(STEPS) - 1)
    assert abs(STEPS.index(delay) - own) <= 1


def test_delays_of_tasks_that_failed_together_differ(policy):
    assert {policy.delay_seconds(2) for _ in range(100)} == {5.0, 30.0, 120.0}


def test_one_step_is_enough():
    assert OutcomePolicy((0.0,), random.Random(1), time.time).delay_seconds(7) == 0.0
