"""What follows from an outcome, without anything around it."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.retry import Again, CancelledDecision, Done, Drop, Fail, Retry, RetryPolicy, decide
from runnerlib.contract import BatchEntry, EntryState, FailureCode, HistoryEntry, Limits, RunError
from taskqueue.tasks import Delivery

STEPS = (1.0, 5.0, 30.0, 120.0, 600.0)


@pytest.fixture
def policy():
    return RetryPolicy(STEPS, random.Random(1))


@pytest.fixture
def outcome(policy):
    def call(
        state="failed",
        code="handler_error",
        retryable=False,
        past=(),
        lone=True,
        expires_at=None,
        limits=None,
        **fields,
    ):
        if state == "failed":
            fields["error"] = RunError(code=code, message="why", retryable=retryable, traceback="tb")
        entry = BatchEntry(id="t", attempt=1, state=EntryState(state), **fields)
        delivery = Delivery("t", "a", b"{}", "d", attempt=1, receipt=None, expires_at=expires_at)
        history = [
            HistoryEntry(attempt=n + 1, code=FailureCode(each), message="", at=datetime.now(UTC))
            for n, each in enumerate(past)
        ]
        return decide(entry, delivery, history, limits=limits or Limits(), policy=policy, now=1000.0, lone=lone)

    return call


def test_success_is_done_with_compact_json(outcome):
    assert outcome("succeeded", result={"a": [1, "ü"]}) == Done('{"a":[1,"ü"]}'.encode())
    assert outcome("succeeded", result=None) == Done(b"null")


def test_success_without_a_result_field_is_a_bad_result(outcome):
    assert outcome("succeeded").code is FailureCode.BAD_RESULT


def test_result_over_its_limit_is_a_bad_result_that_tells_the_limit(outcome):
    decision = outcome("succeeded", result="x" * 50, limits=Limits(result_bytes=40))
    assert decision.code is FailureCode.BAD_RESULT
    assert "52 bytes, the limit is 40" in decision.message


def test_cancelled_unknown_and_stale_runs_cost_nothing(outcome):
    assert outcome("cancelled") == CancelledDecision()
    assert isinstance(outcome("unknown"), Again)
    assert isinstance(outcome("stale_attempt"), Drop)


@pytest.mark.parametrize("code", ["invalid_payload", "bad_result", "expired", "too_large", "handler_error"])
def test_permanent_failures_are_never_retried(outcome, code):
    assert outcome(code=code) == Fail(FailureCode(code), "why", "tb")


def test_retryable_mark_changes_nothing_for_what_is_permanent(outcome):
    for code in ("invalid_payload", "bad_result", "expired"):
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


def test_first_lone_loss_is_retried_and_the_second_fails(outcome):
    assert isinstance(outcome(code="runner_lost"), Retry)
    assert outcome(code="runner_lost", past=("runner_lost",)).code is FailureCode.RUNNER_LOST


def test_lost_runners_and_handler_failures_have_separate_budgets(outcome):
    assert isinstance(outcome(code="runner_lost", past=("timeout",) * 3), Retry)
    assert isinstance(outcome(retryable=True, past=("runner_lost", "timeout", "timeout")), Retry)


def test_loss_of_a_batch_is_charged_to_nobody(outcome):
    decision = outcome(code="runner_lost", lone=False, past=("runner_lost",))
    assert decision == Again("the runner was lost with several tasks in one call", alone=True)


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
    delay = RetryPolicy(STEPS, random.Random(seed)).delay_seconds(failures)
    own = min(failures, len(STEPS) - 1)
    assert abs(STEPS.index(delay) - own) <= 1


def test_delays_of_tasks_that_failed_together_differ(policy):
    assert {policy.delay_seconds(2) for _ in range(100)} == {5.0, 30.0, 120.0}


def test_one_step_is_enough():
    assert RetryPolicy((0.0,), random.Random(1)).delay_seconds(7) == 0.0
