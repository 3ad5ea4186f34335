"""Lists for people, on terminals of any width."""

import io
from datetime import datetime, timezone
from typing import Any

import pytest
from rich.console import Console

from producer.cli.tables import Listing, algorithm_list, dead_list, fields, task_list
from producer.models import DeadLetterView, TaskError, TaskState, TaskSummaryView

NOW = datetime(2026, 5, 31, 1, 2, 3, tzinfo=timezone.utc)
TASK_ID = "0123456789abcdef0123456789abcdef"
HOSTILE = "[/nonsense] [red]x[/red] \x1b]0;title\x07\x9b2J\u202e\u2028"


def shown(listing: Listing, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(listing)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    return lines


def task(**more: Any) -> TaskSummaryView:
    about = {"id": TASK_ID, "algorithm": "language_detection", "state": TaskState.FAILED, "attempt": 3}
    error = TaskError(code="handler_error", message=f"no colours below 3 {HOSTILE}")
    return TaskSummaryView(**{**about, "error": error, "created_at": NOW, "updated_at": NOW, **more})


def letter() -> DeadLetterView:
    return DeadLetterView(
        dead_id=12345,
        task_id=TASK_ID,
        algorithm="language_detection",
        code="invalid_payload",
        message=f"ValueError: {HOSTILE} " + "a long reason " * 10,
        attempts=1,
        created_at=NOW,
    )


def algorithm(name: str, **more: Any) -> dict[str, Any]:
    schema = {"properties": {"text": {"type": "string"}, HOSTILE: {"enum": [HOSTILE]}}, "required": ["text"]}
    counts = {"waiting": 7, "running": 2}
    about = {
        "name": name,
        "input_schema": schema,
        "summary": HOSTILE,
        "runners": ["a"],
        "conflicts": [],
        "tasks": counts,
    }
    return about | more


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_ids_stand_whole_on_one_line(width: int) -> None:
    tasks = shown(task_list([task(), task(id="mine", state=TaskState.RUNNING, error=None)]), width)
    letters = shown(dead_list([letter()]), width)
    assert [line for line in tasks if TASK_ID in line.split()]
    if width >= 60:
        assert [line for line in letters if {TASK_ID, "12345"} <= {*line.split()}]
    for words in ("language_detection", "failed", "running", "handler_error:"):
        assert any(words in line for line in tasks), words
    assert any("invalid_payload" in line for line in letters)


def test_narrow_terminal_has_each_entry_by_itself_and_a_wide_one_a_table() -> None:
    entries = shown(task_list([task(error=None), task(id="mine", error=None)]), 80)
    assert [entries[0], entries[2]] == [TASK_ID, "mine"]
    assert entries[1].split()[:4] == ["language_detection", "failed", "attempt", "3"]
    assert shown(task_list([task()]), 150)[0].split() == ["id", "algorithm", "state", "attempt", "created", "about"]
    short = task(id="mine", algorithm="up", error=None)
    assert shown(task_list([short]), 80)[0].startswith("id")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_algorithms_are_readable_and_obey_nothing_that_a_runner_says(width: int) -> None:
    lines = shown(algorithm_list([algorithm("a_rather_long_name"), algorithm("nobody_s", runners=[])]), width)
    text = " ".join(" ".join(lines).split())
    for words in ("a_rather_long_name", "text: string", "[/nonsense] [red]x[/red]", "\\x1b]0;title\\x07\\x9b2J\\u202e"):
        assert words.replace(" ", "") in text.replace(" ", ""), words
    assert text.index("a_rather_long_name") < text.index("nobody_s")
    assert "none now" in text


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"properties": {"a": True}}, "a: any (optional)"),
        ({"properties": {"a": {"anyOf": [True, {"type": "integer"}]}}, "required": ["a"]}, "a: any | integer"),
        ({"properties": {"a": {"type": "integer"}}, "required": 5}, "a: integer (optional)"),
        ({"properties": ["a"]}, ""),
        ({"properties": {"a": {"enum": 3, "type": "string"}}}, "a: string (optional)"),
        ({"properties": {"a": {"oneOf": {"type": "string"}}}}, "a: any (optional)"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": []}, "a: b (optional)"),
        ({"properties": {"a": {"type": ["string", "null"]}}}, "a: string | null (optional)"),
    ],
)
def test_fields_of_a_schema_are_told_however_a_runner_writes_it(schema: dict[str, Any], told: str) -> None:
    assert fields(schema) == told
    shown(algorithm_list([algorithm("strange", input_schema=schema)]), 80)


def test_fields_of_a_schema_without_end_are_cut() -> None:
    field: dict[str, Any] = {"type": "string"}
    for _ in range(3_000):
        field = {"anyOf": [{"type": "array", "items": field}]}
    assert fields({"properties": {"a": field}}).startswith("a: list of list of")
