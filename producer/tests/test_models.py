"""The client's models say what the gateway says, and can be read from what it answers."""

import dataclasses
from datetime import datetime, timezone
from typing import Any

import pytest

from producer import models
from runnerlib import contract
from runnerlib.contract import names
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES

NOW = datetime(2026, 5, 31, 1, 2, 3, 400_000, tzinfo=timezone.utc)
MODELS = [
    "TaskError",
    "Progress",
    "TaskSummaryView",
    "TaskView",
    "HistoryEntry",
    "DeadLetterView",
    "DeadLetterDetail",
    "SkippedDeadLetter",
    "DeadLettersDone",
]


@pytest.mark.parametrize("name", MODELS)
def test_each_has_the_fields_of_the_contract_in_their_order(name: str) -> None:
    theirs = getattr(contract, name)
    ours = {field.name: field for field in dataclasses.fields(getattr(models, name))}
    assert [*ours] == [*theirs.model_fields]
    must_be_given = {
        name
        for name, field in ours.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert must_be_given == {name for name, field in theirs.model_fields.items() if field.is_required()}


def test_names_and_bounds_are_those_of_the_contract() -> None:
    for ours, theirs in ((models.TaskState, contract.TaskState), (models.FailureCode, contract.FailureCode)):
        assert [(each.name, each.value) for each in ours] == [(each.name, each.value) for each in theirs]
    assert {state.value for state in models.TaskState if state.is_terminal} == {
        state.value for state in contract.TaskState if state.is_terminal
    }
    assert (models._ALGORITHM.pattern, models._TASK_ID.pattern) == (names.ALGORITHM_PATTERN, names.TASK_ID_PATTERN)
    assert models.MAX_MESSAGE_BYTES == MAX_MESSAGE_BYTES


def test_what_the_gateway_writes_is_read_and_written_again_as_it_was() -> None:
    error = contract.TaskError(code=contract.FailureCode.TIMEOUT, message="took 3 s")
    told = [
        contract.TaskView(
            id="a",
            algorithm="upper",
            state=contract.TaskState.FAILED,
            attempt=2,
            result={"n": [1, None, 1.5]},
            error=error,
            progress=contract.Progress(fraction=1, message="ä"),
            created_at=NOW,
            updated_at=NOW.replace(microsecond=0),
        ),
        contract.DeadLetterDetail(
            dead_id=1,
            task_id="a",
            algorithm="upper",
            code=contract.FailureCode.TIMEOUT,
            message="m",
            attempts=1,
            created_at=NOW,
            history=[contract.HistoryEntry(attempt=1, code=contract.FailureCode.TIMEOUT, message="m", at=NOW)],
            headers={"x": {"y": 1}},
            body_base64="e30=",
        ),
        contract.DeadLettersDone(
            done=1, skipped=[contract.SkippedDeadLetter(dead_id=1, code="c", detail="d")], next="n"
        ),
    ]
    for view in told:
        content = view.model_dump(mode="json")
        assert models.to_json(models.from_json(getattr(models, type(view).__name__), content)) == content


def test_fields_and_codes_of_a_newer_gateway_are_no_error() -> None:
    error = {"code": "a_new_code", "message": "m", "hint": 1}
    task = {"id": "a", "algorithm": "u", "state": "failed", "attempt": 1, "error": error, "priority": 3}
    times = {"created_at": "2026-05-31T01:02:03Z", "updated_at": "2026-05-31T01:02:03.4Z"}
    view = models.from_json(models.TaskView, task | times)
    assert view.error is not None and (view.error.code, view.updated_at) == ("a_new_code", NOW)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("TaskView", {}),
        ("TaskView", []),
        ("TaskError", {"code": 1, "message": "m"}),
        ("DeadLettersDone", {"done": True}),
        ("DeadLettersDone", {"done": 1, "skipped": {}}),
        ("TaskSummaryView", {"id": "a", "algorithm": "u", "state": "asleep", "attempt": 1}),
    ],
)
def test_another_shape_is_told(name: str, content: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        models.from_json(getattr(models, name), content)


def test_filter_of_dead_letters_says_only_what_was_chosen() -> None:
    assert models.DeadLetterFilter().body() == models.DeadLetterFilter().query() == {}
    chosen = models.DeadLetterFilter(
        algorithm="upper",
        codes=[models.FailureCode.TIMEOUT],
        task_id="a",
        created_from=datetime(2026, 5, 31, 12, tzinfo=timezone.utc),
    )
    body = chosen.body()
    assert datetime.fromisoformat(body.pop("created_from")) == chosen.created_from
    assert body == {"algorithm": "upper", "codes": ["timeout"], "task_id": "a"}
    assert chosen.query().keys() == {"algorithm", "code", "task_id", "created_from"}
    assert chosen.query()["code"] == ["timeout"]
