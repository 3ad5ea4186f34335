"""What is found in a good adapter."""

import json
import sys

import pytest

from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import ASYNC_SLOTS, Options, ProcessGroup


def test_two_lines_are_an_algorithm(adapter_of):
    adapter = adapter_of("def run_upper(text: str) -> str:\n    return text.upper()")
    upper = adapter.algorithms["upper"]
    assert (upper.name, upper.function_name, upper.is_async, upper.has_batch) == ("upper", "run_upper", False, False)
    assert upper.handler(**upper.validate(b'{"text": "abc"}')) == "ABC"
    assert upper.options == Options()
    assert adapter.process_groups == (ProcessGroup("upper", ("upper",), 1, False),)


def test_prefix_is_matched_whole_and_only_own_functions_count(sample):
    assert list(sample("plain").algorithms) == ["upper", "divide", "slowly"]


def test_left_is_sent_and_right_is_provided(sample):
    slowly = sample("plain").algorithms["slowly"]
    assert [p.name for p in slowly.parameters] == ["steps"]
    assert slowly.provided == ("task", "logger")


def test_description_carries_schema_summary_example_and_limits(sample):
    described = sample("plain").algorithms["upper"].describe()
    assert described.summary == "Turn a text into capital letters."
    assert described.description == "A second paragraph that explains more."
    assert described.example.payload == {"text": "abc", "times": 2}
    assert described.example.result == "ABCABC"
    assert described.output_schema == {"type": "string"}
    assert described.input_schema == {
        "title": "upper",
        "description": "Turn a text into capital letters.",
        "type": "object",
        "properties": {
            "text": {"type": "string", "title": "Text", "description": "Any text, in any language."},
            "times": {"type": "integer", "title": "Times", "description": "How often.", "default": 1},
        },
        "required": ["text"],
        "additionalProperties": False,
    }
    json.loads(described.model_dump_json())


def test_schema_given_out_can_be_changed_without_harm(sample):
    upper = sample("plain").algorithms["upper"]
    upper.input_schema()["properties"].clear()
    assert upper.input_schema()["properties"]


def test_algorithm_without_return_hint_has_no_output_schema(adapter_of):
    assert adapter_of("def run_x(a: int): ...").algorithms["x"].output_schema() is None


def test_none_as_return_hint_is_null(adapter_of):
    assert adapter_of("def run_x(a: int) -> None: ...").algorithms["x"].output_schema() == {"type": "null"}


def test_defaults_in_the_schema_are_json(sample):
    properties = sample("shapes").algorithms["default"].input_schema()["properties"]
    assert properties["box"]["default"] == {"width": 2.0, "colour": "red"}
    assert properties["when"]["default"] == "2024-01-31"
    assert properties["names"]["default"] == []


def test_description_in_the_hint_is_kept(sample):
    properties = sample("shapes").algorithms["each"].input_schema()["properties"]
    assert properties["limited"]["description"] == "from the hint"


def test_path_may_be_the_folder_or_the_file(write):
    file = write("def run_x(a: int): ...")
    assert load_adapter(file).module is load_adapter(file.parent).module


def test_modules_beside_the_adapter_can_be_imported(adapter_of):
    adapter = adapter_of(
        "from words import word\ndef run_x() -> str:\n    return word()", words="def word(): return 'w'"
    )
    assert adapter.algorithms["x"].handler() == "w"


def test_another_adapter_does_not_get_the_modules_of_the_first(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.py").write_text(f"WORD = {name!r}")
        (tmp_path / name / "runner_adapter.py").write_text("from words import WORD\ndef run_x():\n    return WORD")
    words = [load_adapter(tmp_path / name).algorithms["x"].handler() for name in ("one", "two", "one")]
    assert words == ["one", "two", "one"]
    assert str(tmp_path / "two") not in sys.path


def test_async_handler_has_many_slots(sample):
    later = sample("waiting").algorithms["later"]
    assert later.is_async
    assert later.slots == ASYNC_SLOTS


def test_resources_are_those_needed_through_one_another_in_loading_order(sample):
    algorithms = sample("loads").algorithms
    assert algorithms["count"].resources == ("settings", "model", "pool")
    assert algorithms["size"].resources == ("settings", "model")
    assert algorithms["plain"].resources == ()


def test_batch_is_never_larger_than_what_a_process_may_serve(sample):
    scale = sample("batches").algorithms["scale"]
    assert (scale.options.batch, scale.batch_cap, scale.describe().limits.batch) == (8, 4, 4)


def test_batched_and_shared_parameters_are_told_apart(sample):
    algorithms = sample("batches").algorithms
    assert algorithms["scale"].batched_parameters == ("value", "offset")
    assert algorithms["square"].batched_parameters == ("n",)
    assert algorithms["square"].describe().limits.batched
    assert not algorithms["cube"].has_batch


def test_run_is_derived_from_the_batch_handler(sample):
    square = sample("batches").algorithms["square"]
    assert square.function_name == "batch_square"
    assert square.summary == "Square them."
    assert square.validate(b'{"n": 3}') == {"n": 3}
    assert square.handler(n=3) == 9
    assert square.handler(n=3, power=(3,)) == 27
    assert square.output_schema() == {"type": "integer"}
    assert square.describe().example.payload == {"n": 3}
    assert square.describe().example.result == 9


def test_derived_run_raises_what_stands_in_its_place(sample):
    with pytest.raises(ValueError, match="no 3"):
        sample("batches").algorithms["failing"].handler(n=3)


def test_exceptions_in_the_return_hint_of_a_twin_are_no_results(sample):
    assert sample("batches").algorithms["failing"].output_schema() == {"type": "integer"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def batch_x(a: list[str], b: tuple[str, ...]): ...", ("a",)),
        ("from typing import List\ndef batch_x(a: List[str], b: int = 1): ...", ("a",)),
        ("def run_x(a: list[str]): ...\ndef batch_x(a: list[list[str]]): ...", ("a",)),
        ("def run_x(a: list[str], b: int): ...\ndef batch_x(a: list[str], b: list[int]): ...", ("b",)),
        (
            "from __future__ import annotations\n"
            "def run_x(a: int, b: int): ...\ndef batch_x(a: list[int], b: int): ...",
            ("a",),
        ),
    ],
)
def test_lists_are_batched_and_tuples_are_shared(source, expected, adapter_of):
    assert adapter_of(source).algorithms["x"].batched_parameters == expected


def test_payloads_of_equal_shared_json_have_equal_keys(sample):
    scale = sample("batches").algorithms["scale"]
    key = scale.shared_key
    assert key({"value": 1, "factor": 2.0}) == key({"value": 5, "offset": 3, "factor": 2.0})
    assert key({"value": 1, "factor": 2.0}) != key({"value": 1, "factor": 3.0})
    assert key({"value": 1}) == key({"value": 2}) == b""
    assert key({"factor": {"a": 1, "b": [2]}}) == key({"factor": {"b": [2], "a": 1}, "value": 3})
    assert len({key({"factor": one}) for one in (1, 1.0, True, "1", None, [1])} | {key({})}) == 7
    assert key([1]) == key(None) == b""
    assert sample("waiting").algorithms["double"].shared_key({"n": 1}) == b""
