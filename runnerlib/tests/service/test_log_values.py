import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerlib.service.log_values import MAX_VALUE_LENGTH, clean_exception, clean_value, is_secret, redact


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
