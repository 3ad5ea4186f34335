import pytest
from pydantic import ValidationError

from runnerlib.contract import AlgorithmDescription, PlainRegistration, is_algorithm, is_task_id, near_names
from runnerlib.contract.registry import schema_digest


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("nlp:8000", "http://nlp:8000"),
        ("http://nlp:8000/", "http://nlp:8000"),
        ("https://nlp.example", "https://nlp.example"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_host_may_leave_out_the_scheme(given: str, kept: str) -> None:
    assert PlainRegistration(algorithm="upper", host=given).host == kept


@pytest.mark.parametrize("host", ["", "ftp://x", "http://", "http://a/b", "http://u:p@a", "a b", "a?x"])
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
    assert near_names("langauge_detection", ["upper", "language_detection"]) == ["language_detection"]
