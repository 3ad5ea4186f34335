"""Every answer of a runner is read strictly and within bounds, or refused in words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import BadAnswer
from controller.runner_answers import (
    ENTRY_BYTES,
    MAX_ANSWER_BYTES,
    MAX_CONTAINERS,
    MAX_ERROR_CHARACTERS,
    MAX_PROGRESS_CHARACTERS,
    MAX_RETRY_AFTER_SECONDS,
    MAX_TRACEBACK_CHARACTERS,
    Entry,
    most_bytes,
    read_boot,
    read_entries,
    read_problem,
    read_result,
    read_retry_after,
)
from runnerlib.contract import EntryState, FailureCode, Progress

ASKED = ("t", 1)


def entry(**fields):
    return {"id": "t", "attempt": 1, **fields}


def read(*entries, asked=(ASKED,)):
    return read_entries(json.dumps(entries).encode(), asked, "b")


def read_one(**fields):
    answer = read(entry(**fields))
    assert not answer.faults
    return answer.entries[ASKED]


def test_result_is_kept_as_compact_json():
    assert read_one(state="succeeded", result={"a": [1, "ü"]}).result == '{"a":[1,"ü"]}'.encode()
    assert read_one(state="succeeded", result=None).result == b"null"
    assert read_one(state="succeeded").result is None


def test_largest_integers_pass_as_integers():
    assert read_one(state="succeeded", result=2**64 - 1).result == b"18446744073709551615"
    assert read_one(state="succeeded", result=-(2**63)).result == b"-9223372036854775808"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("18446744073709551616", "64 bits"),
        ("9" * 5000, "64 bits"),
        ("NaN", "NaN"),
        ("-Infinity", "Infinity"),
        ("1e400", "64-bit float"),
        ('{"a": 1, "a": 2}', "duplicate key"),
        ('"\\ud800"', "surrogate"),
        ("[" * 70 + "]" * 70, "deeper"),
    ],
)
def test_value_that_not_everybody_reads_alike_is_refused_as_the_runners_own(text, says):
    with pytest.raises(BadAnswer, match=says) as caught:
        read_entries(f'[{{"id":"t","attempt":1,"state":"succeeded","result":{text}}}]'.encode(), [ASKED], "b")
    assert caught.value.would_repeat
    assert caught.value.boot == "b"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>busy</html>", b"[{", b"\xff\xfe", b"\x1f\x8b\x08\x00zip", b"[" * 100_000, b'[{"id": "t"'],
)
def test_what_is_no_json_may_have_been_garbled(body):
    with pytest.raises(BadAnswer) as caught:
        read_entries(body, [ASKED], None)
    assert not caught.value.would_repeat


@pytest.mark.parametrize("body", [b"null", b"{}", b"1", b'"entries"'])
def test_answer_that_is_no_list_is_refused(body):
    with pytest.raises(BadAnswer, match="not a list of entries"):
        read_entries(body, [ASKED], None)


def test_more_lists_than_memory_is_meant_for_are_refused_before_they_are_made():
    with pytest.raises(BadAnswer, match="lists and objects"):
        read_entries(b"[" + b"[]," * MAX_CONTAINERS + b"[]]", [ASKED], None)


def test_entries_of_other_runs_are_passed_over():
    answer = read(
        entry(state="succeeded", result=1),
        {"id": "other", "attempt": 1, "state": "nonsense"},
        {"id": "t", "attempt": 2, "state": "stale_attempt"},
        {"id": "t", "attempt": True, "state": "failed"},
        {"id": "t", "attempt": 1.0, "state": "failed"},
        {"id": ["t"], "attempt": 1},
        None,
        [],
    )
    assert answer.entries == {ASKED: Entry(EntryState.SUCCEEDED, b"1")}
    assert not answer.faults


def test_two_entries_for_one_run_are_none():
    two = [entry(state="succeeded", result=1), entry(state="succeeded", result=2), entry(state="succeeded", result=1)]
    for entries in (two, two[:2], two[::-1]):
        answer = read(*entries, {"id": "u", "attempt": 1, "state": "running"}, asked=[ASKED, ("u", 1)])
        assert "two entries" in answer.faults[ASKED]
        assert answer.entries == {("u", 1): Entry(EntryState.RUNNING)}


@pytest.mark.parametrize("state", ["finished", "SUCCEEDED", "", None, 1, ["running"], "x" * 100_000])
def test_unknown_state_is_a_fault_of_this_run_alone(state):
    answer = read(entry(state=state), {"id": "u", "attempt": 1, "state": "waiting"}, asked=[ASKED, ("u", 1)])
    assert "state" in answer.faults[ASKED]
    assert len(answer.faults[ASKED]) < 200
    assert ("u", 1) in answer.entries


def test_progress_is_bounded_and_has_no_control_characters():
    progress = read_one(state="running", progress={"fraction": 0.5, "message": "a\x1b[2J\nb" + "x" * 900_000}).progress
    assert progress.fraction == 0.5
    assert len(progress.message) == MAX_PROGRESS_CHARACTERS
    assert progress.message.startswith("a\N{REPLACEMENT CHARACTER}[2J bx")


@pytest.mark.parametrize("progress", [{"fraction": 7}, {"fraction": -1}, {"fraction": "1"}, {}, [], "half", None])
def test_progress_that_cannot_be_read_is_left_out(progress):
    assert read_one(state="running", progress=progress) == Entry(EntryState.RUNNING)


def test_progress_of_whole_numbers_is_fine():
    assert read_one(state="running", progress={"fraction": 1}).progress == Progress(fraction=1)


@pytest.mark.parametrize("seconds", [-1, 1e300, "2", True, [1]])
def test_duration_that_cannot_be_is_left_out(seconds):
    assert read_one(state="succeeded", result=1, seconds=seconds).seconds is None


def test_error_is_bounded_and_keeps_the_end_of_its_traceback():
    error = read_one(
        state="failed",
        error={"code": "c" * 9000, "message": "m\x00" * 90_000, "traceback": "t" * 90_000 + "end", "retryable": "yes"},
    ).error
    assert len(error.code) <= 64
    assert len(error.message) == MAX_ERROR_CHARACTERS
    assert "\x00" not in error.message
    assert len(error.traceback) == MAX_TRACEBACK_CHARACTERS
    assert error.traceback.endswith("end")
    assert not error.retryable


@pytest.mark.parametrize("error", [None, [], "no", {"code": None, "message": None}, {"code": 7}])
def test_failure_without_a_reason_is_a_handler_error(error):
    found = read_one(state="failed", error=error).error
    assert found.code in (FailureCode.HANDLER_ERROR.value, "7")
    assert found.message == "the runner gave no reason"


def test_answer_of_a_plain_runner():
    assert read_result(b'{"result": [1, 2]}', None) == Entry(EntryState.SUCCEEDED, b"[1,2]")
    assert read_result(b"[1]", None) == Entry(EntryState.SUCCEEDED)
    with pytest.raises(BadAnswer, match="not JSON"):
        read_result(b"hello", None)


def test_bound_of_an_answer_is_ours_whatever_was_registered():
    assert most_bytes(2, 1000) == 2 * (1000 + ENTRY_BYTES)
    assert most_bytes(1, 10**15) == 16 * 1024 * 1024 + ENTRY_BYTES
    assert most_bytes(4096, 10**15) == MAX_ANSWER_BYTES


@pytest.mark.parametrize("header", [None, "", "x" * 65, "a b", "a\x00b", "ü"])
def test_boot_id_that_can_be_none_is_none(header):
    assert read_boot(header) is None


def test_boot_id_is_as_a_registration_may_have_it():
    assert read_boot("x" * 64) == "x" * 64


def test_retry_after_is_bounded():
    for header in ("1e9", "inf", "99999999999999999999"):
        assert read_retry_after(header) == MAX_RETRY_AFTER_SECONDS
    for header in ("-5", "-inf", "0"):
        assert read_retry_after(header) == 0.01
    for header in (None, "", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", "٣s"):
        assert read_retry_after(header) == 0.5


def test_refusal_keeps_the_runners_words_within_bounds():
    problem = read_problem(422, json.dumps({"detail": "no\x07 such field", "code": 7, "retryable": True}).encode())
    assert (problem.detail, problem.code, problem.status) == ("no\N{REPLACEMENT CHARACTER} such field", "7", 422)
    assert problem.model_extra == {"retryable": True}
    assert len(read_problem(500, json.dumps({"detail": "x" * 60_000}).encode()).detail) == MAX_ERROR_CHARACTERS
    assert read_problem(500, b"<html>").detail == "the runner answered 500"
    assert "loc" in read_problem(422, b'{"detail": [{"loc": ["a"]}]}').detail


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
_FIELDS = st.fixed_dictionaries(
    {"id": st.just("t") | _JSON, "attempt": st.just(1) | _JSON},
    optional={
        "state": st.sampled_from([each.value for each in EntryState]) | _JSON,
        "result": _JSON,
        "error": _JSON | st.fixed_dictionaries({"code": _JSON, "message": _JSON, "retryable": _JSON}),
        "progress": _JSON | st.fixed_dictionaries({"fraction": _JSON, "message": _JSON}),
        "seconds": _JSON,
    },
)


@given(st.lists(_FIELDS, max_size=4) | _JSON)
def test_whatever_comes_is_read_or_refused(value):
    try:
        answer = read_entries(json.dumps(value).encode(), [ASKED], None)
    except BadAnswer:
        return
    assert set(answer.entries) | set(answer.faults) <= {ASKED}
