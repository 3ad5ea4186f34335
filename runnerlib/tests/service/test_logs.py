import json
import logging
from collections.abc import Iterator
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from runnerlib.service.logs import (
    MAX_VALUE_LENGTH,
    clean_exception,
    clean_value,
    configure_logging,
    get_logger,
    is_secret,
    redact,
)

JSON = SimpleNamespace(log_level="INFO", log_format="json")
PRETTY = SimpleNamespace(log_level="INFO", log_format="pretty")
AUTO = SimpleNamespace(log_level="WARNING", log_format="auto")


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_tells_time_level_service_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("controller", JSON)
    get_logger("a.b").info("task recorded", task_id="t1")
    (line,) = lines(capsys)
    assert list(line)[:4] == ["timestamp", "level", "service", "event"]
    assert (line["level"], line["service"], line["event"]) == ("info", "controller", "task recorded")
    assert (line["task_id"], line["logger"]) == ("t1", "a.b")
    age = datetime.now(timezone.utc) - datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00"))
    assert 0 <= age.total_seconds() < 60


def test_auto_means_json_when_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", AUTO)
    get_logger("a").info("not shown")
    get_logger("a").warning("shown")
    assert [line["event"] for line in lines(capsys)] == ["shown"]


def test_context_variables_are_part_of_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", JSON)
    with structlog.contextvars.bound_contextvars(task_id="t9"):
        get_logger("a").info("inside")
        logging.getLogger("library").warning("inside too")
    get_logger("a").info("outside")
    assert [line.get("task_id") for line in lines(capsys)] == ["t9", "t9", None]


def test_standard_library_loggers_come_out_alike(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", JSON)
    try:
        raise ValueError("boo\nhttp://u:hunter2@h/")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("failed %s", "a\nb", extra={"port": 5})
    text = capsys.readouterr().err
    assert "hunter2" not in text
    (line,) = [json.loads(each) for each in text.splitlines()]
    assert (line["event"], line["port"], line["logger"]) == ("failed a\nb", 5, "uvicorn.error")
    assert "ValueError: boo\n" in line["exception"]


def test_chatter_of_libraries_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", JSON)
    logging.getLogger("uvicorn.error").info("Started server process")
    assert lines(capsys) == []


def test_configuring_twice_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", JSON)
    configure_logging("y", JSON)
    get_logger("a").info("once")
    assert [line["service"] for line in lines(capsys)] == ["y"]


def test_a_forged_line_stays_inside_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", PRETTY)
    get_logger("a").info("hello", name='x\n2030-01-01 [error] forged\x1b[31m"', password="hunter2")
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert "hunter2" not in text


def test_an_object_that_json_cannot_write_is_logged_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", JSON)
    get_logger("a").info("odd", value={1, 2}, other=object, error=OSError("x"), raw=b"\xff", ratio=float("nan"))
    (line,) = lines(capsys)
    assert line["error"] == "x"


ODD = "a\r\nb\x1b[31m\x7f\x9b\u2028\u202e\x00\ud800 ä \\"


def test_as_json_text_is_escaped_once_and_reads_as_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", JSON)
    get_logger("a").info(ODD, value=ODD, nested={ODD: [ODD]})
    text = capsys.readouterr().err
    assert not set(ODD) - set(" ab[31mä\\") & set(text.rstrip("\n"))
    line = json.loads(text)
    assert (line["event"], line["value"], line["nested"]) == (ODD, ODD, {ODD: [ODD]})


TRACEBACK = (
    "Traceback (most recent call last):\n" + 600 * '  File "x.py", line 1, in f\n    g()\n' + "ValueError: last words"
)


def test_as_json_a_traceback_keeps_its_lines_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("x", JSON)
    get_logger("a").warning("a handler failed", traceback=TRACEBACK)
    (line,) = lines(capsys)
    assert line["traceback"].endswith("    g()\nValueError: last words")
    assert line["traceback"].startswith("...\n")


def test_for_a_person_a_traceback_stands_below_the_line_and_no_text_in_it_looks_like_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("x", PRETTY)
    text = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: \x1b[2J\n2030-01-01 [error] forged'
    get_logger("a").warning("a handler failed", task_id="t1", traceback=text)
    first, *others = capsys.readouterr().err.splitlines()
    assert "a handler failed" in first
    assert "Traceback" not in first
    assert others[:2] == ["    Traceback (most recent call last):", '      File "x.py", line 1']
    assert others[2:] == ["    ValueError: \\x1b[2J", "    2030-01-01 [error] forged"]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("amqp://guest:hunter2@broker:5672/", "hunter2"),
        ("postgresql://me:p@ss/word@db/x", "p@ss"),
        ("redis://:hunter2@host", "hunter2"),
        ("GET /x?token=hunter2&b=1", "hunter2"),
        ("password: hunter2", "hunter2"),
        ('{"api_key": "hunter2"}', "hunter2"),
        ("Authorization: Bearer hunter2", "hunter2"),
        ("authorization=Basic aHVudGVyMg==", "aHVudGVyMg"),
        ("sent bearer hunter2 to it", "hunter2"),
    ],
)
def test_secrets_in_text_are_redacted(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize("text", ["http://host:8000/a@b", "20 tokens", "task ocr:1@2 done", "a basic test"[:7]])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", ["password", "db_password", "Authorization", "api_key", "access-token", "Cookie"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["tokens", "task_id", "secretary", "tokenizer"])
def test_names_that_only_look_alike_are_not(name: str) -> None:
    assert not is_secret(name)


def test_control_characters_are_escaped() -> None:
    assert clean_value("a\r\nb\x1b[31m\u2028\u202e\x00\ud800") == "a\\r\\nb\\x1b[31m\\u2028\\u202e\\x00\\ud800"


def test_a_traceback_keeps_its_lines_only() -> None:
    assert clean_exception("Traceback\n  x\r\x1b[0m") == "Traceback\n  x\\x0d\\x1b[0m".replace("\\x0d", "\\r")


def test_a_long_value_is_cut_and_says_so() -> None:
    cut = clean_value("x" * 5_000_000)
    assert len(cut) <= MAX_VALUE_LENGTH
    assert "5000000 characters" in cut
    assert len(clean_value({"a": ["y" * 900] * 5})) <= MAX_VALUE_LENGTH


def test_nested_values_are_cleaned() -> None:
    value = {"headers": {"Authorization": "x", "n": [1, "a\n"]}, "deep": [[[[{"token": "hunter2"}]]]]}
    cleaned = clean_value(value)
    assert cleaned["headers"] == {"Authorization": "[redacted]", "n": [1, "a\\n"]}
    assert "hunter2" not in str(cleaned)


class Broken:
    def __str__(self) -> str:
        raise ValueError("no text")


def test_a_value_without_text_does_not_break_the_log() -> None:
    assert "Broken" in clean_value(Broken())


@given(st.text())
def test_no_text_can_break_a_line(text: str) -> None:
    cleaned = clean_value(text)
    assert len(cleaned.splitlines()) <= 1
    assert len(cleaned) <= MAX_VALUE_LENGTH
    cleaned.encode("utf-8")


def test_a_long_traceback_loses_its_beginning_by_whole_lines() -> None:
    text = "password=hunter2\n" * 5_000 + "ValueError: the cause"
    cut = clean_exception(text)
    assert len(cut) < len(text) / 3
    assert "hunter2" not in cut
    assert cut.splitlines()[0] == "..."
    assert cut.endswith("\nValueError: the cause")
    assert clean_exception("x" * 50_000).endswith("x" * 10_000)
