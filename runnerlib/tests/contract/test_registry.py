import pytest
from pydantic import ValidationError

from runnerlib.contract import (
    AlgorithmDescription,
    Limits,
    PlainRegistration,
    RunnerRegistration,
    is_algorithm,
    is_group,
    is_task_id,
    near_names,
    registry,
)
from runnerlib.contract.registry import schema_digest


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("nlp:8000", "http://nlp:8000"),
        ("http://nlp:8000/", "http://nlp:8000"),
        ("https://nlp.example", "https://nlp.example"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("host.docker.internal.:80", "http://host.docker.internal.:80"),
        ("a" * 63 + ".b", "http://" + "a" * 63 + ".b"),
    ],
)
def test_a_host_may_leave_out_the_scheme(given: str, kept: str) -> None:
    assert PlainRegistration(algorithm="upper", host=given).host == kept


@pytest.mark.parametrize(
    "host",
    [
        "",
        "ftp://x",
        "http://",
        "http://a/b",
        "http://u:p@a",
        "a b",
        "a?x",
        "a..b:80",
        ".a",
        "a..",
        ".",
        "a" * 64,
        "b." + "a" * 64,
    ],
)
def test_a_host_that_is_no_base_url_is_refused(host: str) -> None:
    with pytest.raises(ValidationError):
        PlainRegistration(algorithm="upper", host=host)


def test_schema_digest_sees_fields_and_not_prose() -> None:
    one = AlgorithmDescription(name="x", input_schema={"type": "object"}, summary="first")
    same = AlgorithmDescription(name="x", input_schema={"type": "object"}, summary="second")
    other = AlgorithmDescription(name="x", input_schema={"type": "array"})
    assert schema_digest(one) == schema_digest(same) != schema_digest(other)


def test_names_have_one_spelling() -> None:
    assert is_algorithm("language_detection") and not is_algorithm("Language") and not is_algorithm("tasks-unrouted")
    assert is_task_id("a.b_c:d-1") and not is_task_id("a b") and not is_task_id("")
    assert is_group("a.B_c:d-1") and not is_group("a/b") and not is_group("") and not is_group("a" * 65)
    assert near_names("langauge_detection", ["upper", "language_detection"]) == ["language_detection"]


def test_limits_of_a_registry_that_checks_nothing_are_read_within_the_bounds() -> None:
    told = Limits(
        slots=10**9,
        batch=10**6,
        retries=10**6,
        timeout_seconds=float("inf"),
        result_bytes=10**15,
        most_running=10**15,
        group_slots=10**15,
    )
    bounded = told.bounded()
    assert (bounded.slots, bounded.batch, bounded.retries) == (1024, 4096, 100)
    assert (bounded.timeout_seconds, bounded.result_bytes) == (7 * 86_400, 16 * 2**20)
    assert (bounded.most_running, bounded.group_slots) == (10**9, 10**9)
    assert (bounded.most_waiting, bounded.rate_per_second) == (None, None)
    assert Limits().bounded() == Limits()


@pytest.mark.parametrize("name", ["", "a\x1b[31m", "a\u202eb", "a\nb", " a", "plain:h:1", "x" * 101, "a\ud800"])
def test_a_runners_name_is_printable(name: str) -> None:
    with pytest.raises(ValidationError):
        RunnerRegistration(name=name, host="h:1", boot="b", algorithms=[])


@pytest.mark.parametrize("host", ["h\x1b[31m:1", "h:1\u202e", "h:port", "h:1:2", "[::1", "h:1\n:2"])
def test_a_host_has_nothing_that_a_terminal_obeys(host: str) -> None:
    with pytest.raises(ValidationError):
        PlainRegistration(algorithm="upper", host=host)


def test_what_a_runner_has_too_much_of_is_left_out_and_the_rest_taken() -> None:
    many = [AlgorithmDescription(name=f"a{number}", description="x" * 60_000) for number in range(20)]
    refused = registry.unregistrable([*many[:18], AlgorithmDescription(name="small"), *many[18:]])
    assert "small" not in refused and "a0" not in refused
    assert "shorten schemas and docstrings" in refused["a19"]
    assert len(registry.unregistrable([AlgorithmDescription(name=f"a{number}") for number in range(501)])) == 1


def test_a_lone_surrogate_in_a_docstring_is_a_sentence() -> None:
    (reason,) = registry.unregistrable([AlgorithmDescription(name="a", summary="half \ud83d")]).values()
    assert "the first line of its docstring cannot be sent" in reason
