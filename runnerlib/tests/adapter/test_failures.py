"""Errors by class: what is tried again, and what the caller reads."""

import asyncio
import concurrent.futures

import pytest

from runnerlib.adapter.failures import MAX_MESSAGE_BYTES, MAX_TRACEBACK_BYTES, classify
from runnerlib.adapter.model import Options
from runnerlib.adapter.results import BadResult
from runnerlib.adapter.session import Session
from runnerlib.adapter.task import Task


class OutOfMemoryError(RuntimeError):
    """Like torch.cuda's."""


class Special(KeyError):
    pass


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (TimeoutError("slow"), True),
        (asyncio.TimeoutError(), True),
        (concurrent.futures.TimeoutError(), True),
        (ConnectionError("gone"), True),
        (ConnectionResetError("gone"), True),
        (OSError(28, "No space left on device"), True),
        (FileNotFoundError(2, "No such file"), True),
        (MemoryError(), True),
        (OutOfMemoryError("CUDA"), True),
        (ValueError("bad"), False),
        (KeyError("x"), False),
        (ZeroDivisionError(), False),
        (RecursionError(), False),
        (SystemExit(1), False),
        (asyncio.CancelledError(), False),
        (Unprintable(), False),
    ],
)
def test_transient_classes_are_retryable_and_all_else_is_permanent(error, retryable):
    run_error = classify(raised(error), Options())
    assert (run_error.code, run_error.retryable) == ("handler_error", retryable)
    assert run_error.message.startswith(type(error).__name__)


def test_what_invalid_payload_on_names_is_the_senders_mistake():
    options = Options(invalid_payload_on=("builtins.LookupError",), retry_on=("builtins.KeyError",))
    run_error = classify(raised(Special("not a picture")), options)
    assert (run_error.code, run_error.retryable) == ("invalid_payload", False)
    assert run_error.message == str(Special("not a picture"))
    assert classify(raised(KeyError("x")), options).code == "invalid_payload", "of both, the payload is at fault"
    assert classify(raised(ValueError("x")), options).code == "handler_error"


def test_a_payloads_error_without_text_says_its_type():
    assert classify(raised(ValueError()), Options(invalid_payload_on=("builtins.ValueError",))).message == "ValueError"


def test_retry_on_widens_also_for_subclasses():
    assert classify(raised(KeyError("x")), Options(retry_on=("builtins.KeyError",))).retryable
    assert classify(raised(Special("x")), Options(retry_on=("builtins.LookupError",))).retryable
    assert not classify(raised(ValueError("x")), Options(retry_on=("builtins.KeyError",))).retryable


def test_bad_result_is_permanent_and_has_no_traceback():
    run_error = classify(BadResult("run_x() returned NaN"), Options(retry_on=("builtins.Exception",)))
    assert run_error.model_dump() == {
        "code": "bad_result",
        "message": "run_x() returned NaN",
        "retryable": False,
        "traceback": None,
        "errors": None,
    }


def test_message_is_the_authors_with_its_type():
    assert classify(raised(ValueError("too short")), Options()).message == "ValueError: too short"
    assert classify(raised(ValueError()), Options()).message == "ValueError"


def test_long_message_is_cut_within_its_limit():
    message = classify(raised(ValueError("ä" * 10_000)), Options()).message
    assert len(message.encode()) <= MAX_MESSAGE_BYTES
    assert message.endswith("ä…")


def test_what_no_database_stores_is_escaped():
    assert classify(raised(ValueError("a\x00b\ud800")), Options()).message == "ValueError: a\\x00b\\ud800"


def test_traceback_starts_at_the_authors_frame(adapter_of):
    adapter = adapter_of("def run_x(a: int):\n    return deep(a)\n\ndef deep(a):\n    raise ValueError('here')")
    with Session(adapter) as session, pytest.raises(ValueError, match="here") as caught:
        session.call("x", {"a": 1}, Task("t"))
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # this test's own frame
    lines = classify(caught.value, Options()).traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "runner_adapter.py" in lines[1]
    assert lines[1].endswith("in run_x")
    assert lines[-1] == "ValueError: here"


def test_cause_is_part_of_the_traceback():
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        text = classify(error, Options()).traceback
    assert "KeyError: 'inner'" in text
    assert text.rstrip().endswith("ValueError: outer")


def test_long_traceback_keeps_its_end():
    text = classify(raised(ValueError("x" * 100_000 + "end")), Options()).traceback
    assert len(text.encode()) <= MAX_TRACEBACK_BYTES
    assert text.startswith("…")
    assert text.rstrip().endswith("end")


def test_error_that_cannot_be_printed_is_still_told():
    run_error = classify(raised(Unprintable()), Options())
    assert run_error.message == "Unprintable"
    assert "Unprintable" in run_error.traceback
