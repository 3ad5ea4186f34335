"""Whatever an author's types do while they read a payload, it costs the task of that payload alone."""

from collections.abc import Callable
from typing import Any

import pytest

ADAPTER = """
import dataclasses, os, sys, time
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, computed_field, field_serializer, model_validator

OPTIONS = {
    "check": {"timeout_seconds": 0.5},
    "acheck": {"timeout_seconds": 0.5, "slots": 4},
    "both": {"timeout_seconds": 1},
    "abatch": {"timeout_seconds": 1},
    "sums": {"batch": 8},
}
SEEN = {"valid": 0}


def mischief(how: str) -> None:
    if how == "KeyError":
        {}[how]
    if how == "RecursionError":
        mischief(how)
    if how == "SystemExit":
        sys.exit("enough")
    if how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if how == "GeneratorExit":
        raise GeneratorExit
    if how == "OSError":
        raise OSError("away")
    if how == "ValueError":
        raise ValueError("not this one")
    if how == "AssertionError":
        assert not how, "not that one"
    if how == "hidden":
        raise Hidden
    if how == "hang":
        time.sleep(60)
    if how == "die":
        os._exit(9)
    SEEN["valid"] += 1


class Hidden(Exception):
    def __str__(self) -> str:
        sys.exit("not even its text")


@dataclasses.dataclass
class Word:
    how: str

    def __post_init__(self) -> None:
        mischief(self.how)

    def __eq__(self, other: Any) -> bool:
        raise KeyError("not comparable")

    def __repr__(self) -> str:
        raise KeyError("not printable")


class Picky(BaseModel):
    how: str
    extra: Any = Field(default_factory=lambda: SEEN["valid"])

    @model_validator(mode="after")
    def look(self) -> "Picky":
        mischief(self.how)
        return self


def run_check(word: Word) -> str:
    return word.how


async def run_acheck(word: Word) -> str:
    return word.how


def batch_both(word: list[Word]) -> list[str]:
    return [one.how + f" of {len(word)}" for one in word]


async def batch_abatch(word: list[Picky]) -> list[str]:
    return [one.how + f" of {len(word)}" for one in word]


def batch_sums(number: list[int], factor: Picky | float = 1.0) -> list[int]:
    time.sleep(0.2)
    return [len(number) for _ in number]


def run_reader(word: Annotated[str, AfterValidator(mischief)]) -> int:
    return SEEN["valid"]


def run_alias(source: Annotated[str, Field(alias="from")]) -> str:
    return source


From = Annotated[str, Field(alias="from")]
Class = Annotated[str, Field(alias="class")]


def batch_aliases(text: list[From], to: Class) -> list[str]:
    time.sleep(0.2)
    return [f"{one} {to} of {len(text)}" for one in text]


class Half(BaseModel):
    x: Any = Field(default_factory=lambda: raise_half())


def raise_half() -> None:
    raise ValueError("half a \\ud83d\\x00")


def run_half(half: Half = Half(x=1), *, task: Any) -> str:
    task.progress(0.5, "half a \\ud83d\\x00")
    return "whole"


def run_default(d: list[int] = [1]) -> list[int]:
    d.append(2)
    return d


class Answer(BaseModel):
    how: str

    @computed_field
    @property
    def computed(self) -> str:
        if self.how == "computed":
            raise KeyError("computed")
        return self.how

    @field_serializer("how")
    def write(self, how: str) -> str:
        mischief(how)
        return how


def run_answer(how: str) -> Answer:
    return Answer(how=how)
"""

RAISED = {
    "KeyError": "KeyError: 'KeyError'",
    "RecursionError": "RecursionError: maximum recursion depth exceeded",
    "SystemExit": "SystemExit: enough",
    "KeyboardInterrupt": "KeyboardInterrupt",
    "GeneratorExit": "GeneratorExit",
    "OSError": "OSError: away",
    "hidden": "Hidden",
}


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER, CANCEL_GRACE_SECONDS="0.3")


def words(item: Callable[..., Any], tag: str, *hows: str) -> list[dict[str, Any]]:
    return [item(f"{tag}-{at}", {"word": {"how": how}}) for at, how in enumerate(hows)]


@pytest.mark.parametrize("algorithm", ["check", "acheck", "both", "abatch"])
@pytest.mark.parametrize("how", RAISED)
def test_a_validator_that_raises_fails_its_own_task_for_good(runner: Any, item: Any, algorithm: str, how: str) -> None:
    entries = runner.batch(algorithm, words(item, f"{algorithm}-{how}", "a", "b", how, "c"))
    assert [one["state"] for one in entries] == ["succeeded", "succeeded", "failed", "succeeded"]
    error = entries[2]["error"]
    assert (error["code"], error["retryable"]) == ("handler_error", False)
    assert error["message"].startswith(RAISED[how])
    assert "runner_adapter.py" in error["traceback"]
    assert runner.run(algorithm, {"word": {"how": "after"}}).status_code == 200


@pytest.mark.parametrize("algorithm", ["check", "acheck", "both", "abatch"])
@pytest.mark.parametrize("how", ["ValueError", "AssertionError"])
def test_a_validator_that_refuses_a_payload_is_told_to_its_sender(
    runner: Any, item: Any, algorithm: str, how: str
) -> None:
    said = {"ValueError": "Value error, not this one", "AssertionError": "Assertion failed, not that one"}[how]
    entries = runner.batch(algorithm, words(item, f"{algorithm}-{how}", "a", how, "c"))
    assert [one["state"] for one in entries] == ["succeeded", "failed", "succeeded"]
    assert entries[1]["error"]["code"] == "invalid_payload"
    assert entries[1]["error"]["message"].startswith(f"word: {said}")
    answer = runner.run(algorithm, {"word": {"how": how}})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_payload")
    assert [(one["loc"], one["msg"][: len(said)]) for one in answer.json()["errors"]] == [(["word"], said)]


@pytest.mark.parametrize("algorithm", ["both", "abatch"])
def test_members_of_a_batched_call_are_called_together_without_those_that_do_not_fit(
    runner: Any, item: Any, algorithm: str
) -> None:
    entries = runner.batch(algorithm, words(item, f"together-{algorithm}", "a", "ValueError", "b", "KeyError", "c"))
    assert [one.get("result") for one in entries] == ["a of 3", None, "b of 3", None, "c of 3"]


@pytest.mark.parametrize("algorithm", ["check", "both", "abatch"])
def test_a_validator_that_hangs_is_stopped_at_the_time_limit(runner: Any, item: Any, algorithm: str) -> None:
    entries = runner.batch(algorithm, words(item, f"hang-{algorithm}", "a", "hang", "b"))
    assert [one["state"] for one in entries] == ["succeeded", "failed", "succeeded"]
    assert entries[1]["error"]["code"] == "timeout"


def test_a_validator_that_blocks_the_loop_is_killed(runner: Any, item: Any) -> None:
    (entry,) = runner.batch("acheck", words(item, "block", "hang"))
    assert entry["error"]["code"] == "timeout"
    assert runner.run("acheck", {"word": {"how": "after"}}).json() == {"result": "after"}


@pytest.mark.parametrize("algorithm", ["check", "acheck", "both", "abatch"])
def test_a_validator_that_ends_its_process_costs_its_own_task(runner: Any, item: Any, algorithm: str) -> None:
    entries = runner.batch(algorithm, words(item, f"die-{algorithm}", "a", "die", "b"))
    assert [one["state"] for one in entries] == ["succeeded", "failed", "succeeded"]
    assert entries[1]["error"]["code"] == "runner_lost"


def test_payloads_are_read_once_and_never_in_the_serving_process(runner: Any, item: Any) -> None:
    before = runner.run("reader", {"word": "x"}).json()["result"]
    runner.batch("reader", [item(f"read-{at}", {"word": "x"}) for at in range(5)])
    assert runner.run("reader", {"word": "x"}).json()["result"] == before + 6
    assert runner.run("reader", {"word": "KeyError"}).status_code == 500
    assert runner.get("/healthz/live").status_code == 200


def test_members_with_the_same_shared_json_share_a_call_and_others_do_not(runner: Any, item: Any) -> None:
    factors: list[dict[str, Any]] = [{"factor": {"how": "x"}}, {"factor": {"how": "y"}}, {}, {"factor": 1.0}]
    payloads = [{"number": at, **factor} for factor in factors for at in range(2)]
    # The slot takes the first bucket at once, before the others have come.
    entries = runner.batch("sums", [item(f"sum-{at}", payload) for at, payload in enumerate(payloads)])
    assert [one["result"] for one in entries] == [2] * 8


def test_a_shared_argument_that_cannot_be_read_fails_those_that_have_it(runner: Any, item: Any) -> None:
    payloads = [{"number": 1, "factor": {"how": "KeyError"}}, {"number": 2}, {"number": 3, "factor": "no"}]
    entries = runner.batch("sums", [item(f"shared-{at}", payload) for at, payload in enumerate(payloads)])
    assert [one.get("error", {}).get("code") for one in entries] == ["handler_error", None, "invalid_payload"]


def test_a_payload_that_is_no_object_is_told_so(runner: Any, item: Any) -> None:
    entries = runner.batch("sums", [item("no-object", [1]), item("object", {"number": 1})])
    assert [one.get("error", {}).get("code") for one in entries] == ["invalid_payload", None]


def test_a_field_with_an_alias_is_sent_and_batched_by_it(runner: Any, item: Any) -> None:
    assert runner.run("alias", {"from": "a"}).json() == {"result": "a"}
    answer = runner.run("alias", {"source": "a"})
    assert (answer.status_code, [one["loc"] for one in answer.json()["errors"]]) == (422, [["from"], ["source"]])
    payloads = [{"from": f"{at}", "class": "xy"[at % 2]} for at in range(4)]
    entries = runner.batch("aliases", [item(f"alias-{at}", payload) for at, payload in enumerate(payloads)])
    assert [one["result"] for one in entries] == ["0 x of 2", "1 y of 2", "2 x of 2", "3 y of 2"]
    described = {one["name"]: one for one in runner.get("/schemas").json()}
    assert list(described["aliases"]["input_schema"]["properties"]) == ["from", "class"]
    assert '"from"' in runner.get("/openapi.json").text


def test_what_is_said_in_half_characters_reaches_the_caller(runner: Any, item: Any) -> None:
    assert runner.run("half", {}).json() == {"result": "whole"}
    answer = runner.run("half", {"half": {}})
    assert (answer.status_code, answer.json()["detail"]) == (422, "payload: Value error, half a \\ud83d\\x00")


def test_a_default_is_the_same_for_each_task(runner: Any, item: Any) -> None:
    entries = runner.batch("default", [item(f"default-{at}", {}) for at in range(3)])
    assert [one["result"] for one in entries] == [[1, 2]] * 3


@pytest.mark.parametrize("how", ["KeyError", "SystemExit"])
def test_a_serializer_that_raises_fails_its_own_task(runner: Any, item: Any, how: str) -> None:
    items = [item(f"answer-{how}-{at}", {"how": one}) for at, one in enumerate(["a", how, "computed", "b"])]
    entries = runner.batch("answer", items)
    assert [one["state"] for one in entries] == ["succeeded", "failed", "failed", "succeeded"]
    assert (entries[1]["error"]["code"], entries[1]["error"]["retryable"]) == ("bad_result", False)


@pytest.mark.parametrize("bad", [{"deadline": 10**400}, {"attempt": 2**31}, {"attempt": 10**30}])
def test_numbers_beyond_reason_are_refused_before_anything_is_started(
    runner: Any, item: Any, bad: dict[str, Any]
) -> None:
    items = [item("reason-1", {"word": {"how": "a"}}), {**item("reason-2", {"word": {"how": "a"}}), **bad}]
    answer = runner.post_batch("check", items)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert runner.state("reason-1") == "unknown"
