"""Why a task waits, told from its row and the catalogue."""

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from producer.gateway.views import TaskResponder, pending_reason
from runnerlib.contract import (
    AlgorithmDescription,
    AlgorithmView,
    Catalogue,
    RunnerLevel,
    RunnerView,
    TaskState,
)
from taskqueue.tasks import Page, Pause, TaskRow, TaskSummary

CREATED_AT = 1_780_000_000.0  # 2026-05-28T20:26:40Z


def task(state: TaskState = TaskState.QUEUED, algorithm: str = "upper", attempt: int = 1, **more: Any) -> TaskSummary:
    return TaskSummary(1, "id", algorithm, state, attempt, CREATED_AT, CREATED_AT + 60, **more)


@dataclass
class View:
    catalogue: Catalogue | None
    is_sure: bool = True


def known(runners: list[str] | None = None, outdated: list[str] | None = None, **more: Any) -> View:
    """`upper` is known, with these runners."""
    view = AlgorithmView(
        description=AlgorithmDescription(name="upper"),
        schema_digest="d",
        runners=runners or [],
        outdated=outdated or [],
    )
    live = {
        name: RunnerView(id=name, name=name, host="http://h", boot="b", level=RunnerLevel.FULL, algorithms=["upper"])
        for name in [*(runners or []), *(outdated or [])]
    }
    catalogue = Catalogue(
        epoch="e", index=1, uptime_seconds=99, lease_seconds=30, runners=live, algorithms={"upper": view}
    )
    return View(catalogue, **more)


def why(waiting: TaskSummary | TaskRow, environment: View, pause: Pause | None = None, now: float = 0) -> str | None:
    return pending_reason(waiting, environment, 600, pause, now=now)


def delayed(state: TaskState = TaskState.QUEUED, algorithm: str = "upper", **more: Any) -> TaskRow:
    """A task that may start a minute after it was sent."""
    times = {"created_at": CREATED_AT, "updated_at": CREATED_AT, "not_before": CREATED_AT + 60}
    return TaskRow("id", algorithm, b"{}", "d", state, 1, **times, **more)


def test_task_with_a_runner_waits_for_nothing_but_its_turn() -> None:
    assert why(task(), known(["text-1"])) is None


def test_task_whose_runners_take_nothing_waits_for_what_a_controller_has_found_out() -> None:
    pending_reason = "no runner that offers 'upper' can be reached: runner text-1 at http://h: no such host"
    said = why(task(pending_reason=pending_reason, expires_at=CREATED_AT), known(["text-1"]))
    assert said == f"{pending_reason}; it waits until 2026-05-28T20:26:40Z"
    # a note may be older than the runner's leaving
    assert why(task(pending_reason=pending_reason), known()) == "no runner offers 'upper' now; it waits for one"


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED])
def test_task_that_runs_or_has_ended_waits_for_nothing(state: TaskState) -> None:
    assert why(task(state), known()) is None
    assert why(task(state, "nobody"), View(None, is_sure=False)) is None


def test_known_algorithm_without_a_runner() -> None:
    assert why(task(), known()) == "no runner offers 'upper' now; it waits for one"
    expiring = task(expires_at=CREATED_AT + 30)
    assert why(expiring, known()) == "no runner offers 'upper' now; it waits for one until 2026-05-28T20:27:10Z"


def test_runners_with_an_old_schema_are_none() -> None:
    assert "another schema" in (why(task(), known(outdated=["text-1"])) or "")


def test_unknown_algorithm_is_told_with_its_end_and_near_names() -> None:
    assert why(task(algorithm="uper"), known()) == (
        "unknown algorithm: no runner ever offered 'uper' (did you mean 'upper'?); "
        "fails at 2026-05-28T20:36:40Z unless one does"
    )


def test_end_of_an_unknown_algorithm_is_the_earlier_of_grace_and_expiry() -> None:
    assert "fails at 2026-05-28T20:27:10Z" in (why(task(algorithm="x", expires_at=CREATED_AT + 30), known()) or "")
    # a replayed task waits anew
    assert "fails at 2026-05-28T20:37:40Z" in (why(task(algorithm="x", replays=1), known()) or "")


def test_nobody_is_called_unknown_while_discovery_is_not_sure() -> None:
    assert why(task(algorithm="uper"), known(is_sure=False)) == "no runner offers 'uper' now; it waits for one"
    assert "discovery has not answered" in (why(task(), View(None, is_sure=False)) or "")


def test_pause_between_two_attempts_is_told_and_does_not_expire() -> None:
    retrying = task(TaskState.RETRYING, attempt=2, expires_at=CREATED_AT + 1)
    assert why(retrying, known(["text-1"])) == "attempt 2 comes after a pause: attempt 1 failed"
    assert why(retrying, known()) == "no runner offers 'upper' now; it waits for one"


def test_delayed_task_says_when_it_may_start_and_then_nothing() -> None:
    sentence = "it was sent to start not before 2026-05-28T20:27:40Z"
    assert why(delayed(), known(["text-1"]), now=CREATED_AT + 59.9) == sentence
    assert why(delayed(), known(["text-1"]), now=CREATED_AT + 60) is None
    # what keeps others waiting now does not matter to it yet
    assert why(delayed(pending_reason="3 tasks run"), known(["text-1"]), now=CREATED_AT) == sentence
    assert why(delayed(pending_reason="3 tasks run"), known(["text-1"]), now=CREATED_AT + 60) == "3 tasks run; it waits"
    for state in (TaskState.RUNNING, TaskState.CANCELLED):
        assert why(delayed(state), known(["text-1"]), now=CREATED_AT) is None


def test_delayed_task_also_says_what_would_keep_it_waiting_afterwards() -> None:
    sentence = "it was sent to start not before 2026-05-28T20:27:40Z; "
    nobody = "no runner offers 'upper' now; it waits for one until 2026-05-28T20:33:20Z"
    assert why(delayed(expires_at=CREATED_AT + 400), known(), now=CREATED_AT) == sentence + nobody
    assert why(delayed(expires_at=CREATED_AT + 400), known(), now=CREATED_AT + 60) == nobody
    paused = why(delayed(), known(["text-1"]), Pause("ann", CREATED_AT), now=CREATED_AT) or ""
    assert paused.startswith(sentence) and "'upper' is paused by ann" in paused
    unknown = why(delayed(algorithm="uper"), known(), now=CREATED_AT) or ""
    assert unknown.startswith(f"{sentence}unknown algorithm") and "did you mean 'upper'?" in unknown


def test_task_and_list_tell_group_and_time() -> None:
    responder = TaskResponder(known(["text-1"]), SimpleNamespace(paused={}), 600)
    told = json.loads(responder.task(delayed(group="acme")))
    assert (told["group"], told["not_before"]) == ("acme", "2026-05-28T20:27:40Z")
    plain = json.loads(responder.task(TaskRow("id", "upper", b"{}", "d", TaskState.QUEUED, 1, CREATED_AT, CREATED_AT)))
    assert (plain["group"], plain["not_before"]) == (None, None)
    summary = task(group="acme", not_before=CREATED_AT + 60)
    [listed] = json.loads(responder.page(Page((summary,))))["tasks"]
    assert (listed["group"], listed["not_before"]) == ("acme", "2026-05-28T20:27:40Z")
    assert listed["waiting_for"] is None or "start not before" in listed["waiting_for"]


def test_an_algorithm_whose_owner_is_away_waits_for_it_though_another_runner_offers_it() -> None:
    environment = known()
    assert environment.catalogue is not None
    view = environment.catalogue.algorithms["upper"]
    away = view.model_copy(update={"owner": "text", "clashing": ["other"]})
    environment.catalogue.algorithms["upper"] = away
    said = why(task(), environment)
    assert said is not None and "'upper' belongs to runner 'text', which is away" in said
    assert "worker take-over upper RUNNER" in said
