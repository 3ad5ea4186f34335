"""What a docstring says, and what of its example is used."""

import pytest

from runnerlib.adapter.docs import Callee, read_docs
from runnerlib.adapter.model import MISSING, DocExample

CALLEE = Callee("run_x", ["a", "b"], ["model"])


def read(text, callee=CALLEE):
    problems = []
    docs = read_docs(text, callee, problems)
    assert problems == []
    return docs


def test_no_docstring_is_nothing():
    docs = read(None)
    assert (docs.summary, docs.description, dict(docs.fields), docs.example, docs.notes) == ("", "", {}, None, ())


def test_parts_of_a_docstring():
    docs = read(
        """First line.
        Second line.

        More.

        Args:
            a: What it is,
                and more of it.

            b (int, optional): With a type.
            model: is provided

        Returns:
            Something.

        >>> run_x(1)
        2
        """
    )
    assert docs.summary == "First line."
    assert docs.description == "Second line.\n\nMore.\n\nReturns:\n    Something."
    assert docs.fields == {"a": "What it is, and more of it.", "b": "With a type.", "model": "is provided"}
    assert docs.example == DocExample({"a": 1}, "2\n", 2)
    assert docs.notes == ()


def test_summary_may_start_on_the_second_line():
    assert read("\n    First line.\n\n    Rest.\n").summary == "First line."


def test_described_name_that_is_no_parameter_is_a_note():
    docs = read_docs("X.\n\nArgs:\n    tetx: A text.", Callee("run_x", ["text"]), [])
    assert docs.notes == ("run_x(): its docstring describes 'tetx', which is no parameter. Did you mean 'text'?",)


EXAMPLES = {
    "positional and keyword": (">>> run_x(1, b='c')\n2", {"a": 1, "b": "c"}, 2),
    "provided names are left out": (">>> run_x(1, model=load_model())\n2", {"a": 1}, 2),
    "no output is None": (">>> run_x(1)", {"a": 1}, None),
    "containers become JSON": (">>> run_x((1, 2), b={'k': {3}})\n(1, [2])", {"a": [1, 2], "b": {"k": [3]}}, [1, [2]]),
    "negative numbers": (">>> run_x(-1)\n-2.5", {"a": -1}, -2.5),
    "over two lines": (">>> run_x(\n...     1,\n... )\n2", {"a": 1}, 2),
    "a dataclass is its fields": (">>> run_x(1)\nPoint(x=1, y=[Size(w=2)])", {"a": 1}, {"x": 1, "y": [{"w": 2}]}),
    "awaited": (">>> await run_x(1)\n2", {"a": 1}, 2),
    "run by asyncio": (">>> asyncio.run(run_x(1))\n2", {"a": 1}, 2),
    "an ellipsis leaves the result open": (">>> run_x(1)\n{'a': ...}", {"a": 1}, MISSING),
    "text that is no literal": (">>> run_x(1)\n<Colour.RED: 1>", {"a": 1}, MISSING),
    "the first that does not fail": (
        ">>> run_x(0)\nTraceback (most recent call last):\n...\nValueError: no\n>>> run_x(1)\n2",
        {"a": 1},
        2,
    ),
    "the first of two": (">>> run_x(1)\n2\n>>> run_x(2)\n3", {"a": 1}, 2),
    "other calls are passed over": (">>> import math\n>>> other(1)\n1\n>>> run_x(1)\n2", {"a": 1}, 2),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_payload_and_result(name):
    source, payload, result = EXAMPLES[name]
    example = read(f"X.\n\n{source}\n").example
    assert (example.payload, example.result, example.is_whole, example.skip) == (payload, result, True, False)


@pytest.mark.parametrize(
    "line", [">>> r = run_x(1)", ">>> run_x(1)['k']", ">>> round(run_x(1), 2)", ">>> print(run_x(1))"]
)
def test_call_inside_a_line_gives_the_payload_only(line):
    example = read(f"X.\n\n{line}\n2\n").example
    assert (example.payload, example.result, example.is_whole) == ({"a": 1}, MISSING, False)


def test_skipped_example_is_shown_and_not_run():
    example = read("X.\n\n>>> run_x(1)  # doctest: +SKIP\n2\n").example
    assert (example.payload, example.result, example.skip) == ({"a": 1}, 2, True)


UNUSABLE = {
    ">>> run_x(date(2024, 1, 1))": "is not used, since 'a' is not a plain literal",
    ">>> run_x(**{'a': 1})": "passes **arguments",
    ">>> run_x(1, 2, 3)": "passes 3 arguments by position, but only 2 are sent",
    ">>> run_x(b'\\xff')": "is not used, since JSON cannot carry",
    ">>> run_x(*[1])": "is not used, since 'a' is not a plain literal",
    ">>> run_x(": "is not Python",
}


@pytest.mark.parametrize("line", UNUSABLE)
def test_example_that_is_no_payload_is_a_note(line):
    docs = read_docs(f"X.\n\n{line}\n2\n".replace("\\\\", "\\"), CALLEE, [])
    assert docs.example is None
    assert docs.notes[0].startswith(f"run_x(): its example {UNUSABLE[line]}")


def test_no_function_of_the_example_is_ever_called():
    docs = read_docs("X.\n\n>>> run_x(__import__('os').abort())\n", CALLEE, [])
    assert docs.example is None


def test_batched_example_gives_its_first_member():
    callee = Callee("batch_x", ["a", "b"], [], ["a"])
    example = read("X.\n\n>>> batch_x([1, 2], 'c')\n[3, 4]\n", callee).example
    assert (example.payload, example.want, example.result) == ({"a": 1, "b": "c"}, "3\n", 3)
    example = read("X.\n\n>>> batch_x([1, 2], 'c')\n[3, ...]\n", callee).example
    assert (example.payload, example.result, example.is_whole) == ({"a": 1, "b": "c"}, MISSING, False)
    assert "not a list" in read_docs("X.\n\n>>> batch_x([])\n[]\n", callee, []).notes[0]


def test_example_of_a_batch_handler_may_call_the_function_for_one_task():
    callee = Callee("batch_x", ["a"], [], ["a"], "run_x")
    example = read("X.\n\n>>> run_x(1)\n3\n", callee).example
    assert (example.payload, example.result, example.is_whole) == ({"a": 1}, 3, True)


def test_example_that_calls_something_else_is_a_note():
    docs = read_docs("X.\n\n>>> other(1)\n2\n", CALLEE, [])
    assert (docs.example, docs.notes) == (None, ("run_x(): its example is not used, since it does not call run_x",))


BESIDE = """
def run_x(a: int) -> int:
    {run}
    return a

def batch_x(a: list[int]) -> list[int]:
    {batch}
    return a
"""


@pytest.mark.parametrize("batch", ["batch_x([1, 2])\n    [1, 2]", "run_x(1)\n    1"])
def test_example_of_a_twin_is_used_when_its_function_has_none(adapter_of, batch):
    algorithm = adapter_of(BESIDE.format(run="", batch=f'"""X.\n\n    >>> {batch}\n    """')).algorithms["x"]
    assert (algorithm.example.payload, algorithm.example.result, algorithm.notes) == ({"a": 1}, 1, ())


def test_example_of_a_twin_that_is_not_used_is_a_note(adapter_of):
    run, batch = '"""X.\n\n    >>> run_x(1)\n    1\n    """', '"""X.\n\n    >>> batch_x([2])\n    [2]\n    """'
    algorithm = adapter_of(BESIDE.format(run=run, batch=batch)).algorithms["x"]
    assert algorithm.example.payload == {"a": 1}
    assert algorithm.notes == ("batch_x(): its example is not run, since run_x has one",)
