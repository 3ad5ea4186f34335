import json
import logging
from collections.abc import Iterator
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from runnerlib.service.logs import configure_logging, get_logger

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
