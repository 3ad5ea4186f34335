"""Loading, calling, batching, self-tests."""

import asyncio

import pytest

from runnerlib.adapter.provided import Task
from runnerlib.adapter.session import LoadError, SelfTestFailed, Session
from runnerlib.adapter.values import BadResult, classify

TASK = Task("t-1", 2)


def tasks(count):
    return [Task(f"t-{i}") for i in range(count)]


def test_only_what_is_needed_is_loaded_once_and_torn_down_in_reverse(sample):
    adapter = sample("loads")
    events = adapter.module.EVENTS
    with Session(adapter, ["count"], device="cuda:0") as session:
        assert events == ["settings", "model model.bin 3 on cuda:0", "pool"]
        assert session.call("count", {"text": "a"}, TASK) == "a3cuda:0"
        assert session.call("count", {"text": "b"}, TASK) == "b3cuda:0"
        assert session.metrics.registry.get_sample_value("counted_total") == 2
    assert events[3:] == ["pool closed", "model closed"]


def test_algorithm_that_names_nothing_loads_nothing(sample):
    adapter = sample("loads")
    with Session(adapter, ["plain"]) as session:
        assert session.call("plain", {"text": "a"}, TASK) == "a"
    assert adapter.module.EVENTS == []


def test_shared_things_are_loaded_once_for_several_algorithms(sample):
    adapter = sample("loads")
    with Session(adapter):
        assert adapter.module.EVENTS.count("settings") == 1
    assert "unused" not in adapter.module.EVENTS


def test_replaced_thing_is_not_loaded_nor_what_only_it_needs(sample):
    adapter = sample("loads")
    with Session(adapter, ["size"], replacements={"model": "abcd"}) as session:
        assert session.call("size", {}, TASK) == 4
    assert adapter.module.EVENTS == []


def test_load_that_fails_says_which_and_tears_down_what_was_loaded(adapter_of):
    adapter = adapter_of(
        """
        EVENTS = []
        def load_a():
            yield 1
            EVENTS.append("a closed")
        def load_b(a):
            raise FileNotFoundError("model.bin")
        def run_x(n: int, *, b): ...
        """
    )
    with pytest.raises(LoadError) as caught, Session(adapter):
        pass
    assert str(caught.value) == "load_b() failed: FileNotFoundError: model.bin"
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert adapter.module.EVENTS == ["a closed"]


def test_generator_without_yield_is_told(adapter_of):
    adapter = adapter_of("def load_a():\n    return\n    yield\ndef run_x(n: int, *, a): ...")
    with pytest.raises(LoadError, match=r"load_a\(\) ended without a yield"), Session(adapter):
        pass


def test_failing_tear_down_keeps_no_other_from_its_own(adapter_of):
    adapter = adapter_of(
        """
        EVENTS = []
        def load_a():
            yield 1
            EVENTS.append("a closed")
        def load_b(a):
            yield 2
            raise ValueError("b")
        def load_c(b):
            yield 3
            yield 4
        def run_x(n: int, *, c): ...
        """
    )
    with Session(adapter):
        pass
    assert adapter.module.EVENTS == ["a closed"]


def test_task_and_logger_belong_to_the_call(adapter_of):
    adapter = adapter_of(
        """
        def run_x(*, task, logger, device) -> list:
            return [task.id, task.attempt, logger._context["task_id"], logger._context["algorithm"], device]
        """
    )
    with Session(adapter) as session:
        assert session.call("x", {}, Task("a", 1)) == ["a", 1, "a", "x", "cpu"]
        assert session.call("x", {}, Task("b", 2)) == ["b", 2, "b", "x", "cpu"]


def test_provided_name_with_a_default_is_provided(adapter_of):
    adapter = adapter_of("def run_x(n: int, *, device='none') -> str:\n    return device")
    with Session(adapter, device="cuda") as session:
        assert session.call("x", {"n": 1}, TASK) == "cuda"


def test_author_errors_pass_through(sample):
    with Session(sample("plain"), ["divide"]) as session, pytest.raises(ZeroDivisionError) as caught:
        session.call("divide", {"a": 1, "b": 0}, TASK)
    assert classify(caught.value, session.algorithms["divide"].options).retryable


def test_async_handler_is_awaited(sample):
    reports = []
    with Session(sample("waiting")) as session:
        task = Task("t", report=lambda fraction, message: reports.append((fraction, message)))
        assert asyncio.run(session.call_async("later", {"text": "a"}, task)) == "a later"
        assert session.call_here("later", {"text": "b"}, task) == "b later"
        assert asyncio.run(session.call_batch_async("double", [{"n": 1}, {"n": 2}], tasks(2))) == [2, 4]
        assert asyncio.run(session.call_async("double", {"n": 4}, TASK)) == 8
    assert reports == [(0.5, "half")] * 2


def test_batched_call_gets_lists_filled_with_defaults_and_shared_values_once(sample):
    adapter = sample("batches")
    with Session(adapter, ["scale"]) as session:
        members = [{"value": 1.0, "factor": 3.0}, {"value": 2.0, "offset": 0.5, "factor": 3.0}]
        assert session.call_batch("scale", members, tasks(2)) == [3.0, 6.5]
    assert adapter.module.CALLS == [{"value": [1.0, 2.0], "offset": [0.0, 0.5], "factor": 3.0}]


def test_a_default_that_a_handler_changes_is_new_for_each_task(adapter_of):
    adapter = adapter_of(
        """
        import dataclasses
        @dataclasses.dataclass
        class Basket:
            eggs: list[int]
        def run_plain(d: list[int] = [1], b: Basket = Basket([1]), *, loaded) -> list:
            d.append(2); b.eggs.append(2); loaded.append(2)
            return [d, b.eggs, loaded]
        def load_loaded():
            return [1]
        async def run_later(d: dict[str, list[int]] = {"a": []}) -> dict:
            d["a"].append(1)
            return d
        def run_both(n: int, own: list[int] = [0], shared: tuple[list[int], ...] = ([1],)) -> list:
            return batch_both([n], [own], shared)[0]
        def batch_both(n: list[int], own: list[list[int]], shared: tuple[list[int], ...] = ([1],)) -> list:
            for one in own:
                one.append(2)
            shared[0].append(2)
            return [[one, list(shared[0])] for one in own]
        """
    )
    with Session(adapter) as session:
        for loaded in ([1, 2], [1, 2, 2]):
            assert session.call("plain", {}, TASK) == [[1, 2], [1, 2], loaded]
            assert session.call_here("later", {}, TASK) == {"a": [1]}
            assert session.call("both", {"n": 1}, TASK) == [[0, 2], [1, 2]]
            assert session.call_batch("both", [{"n": 1}, {"n": 2}], tasks(2)) == [[[0, 2], [1, 2]]] * 2


def test_exception_in_a_place_is_that_members_alone(sample):
    with Session(sample("batches"), ["scale"]) as session:
        first, second = session.call_batch("scale", [{"value": -1.0}, {"value": 1.0}], tasks(2))
    assert isinstance(first, ValueError)
    assert second == 2.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short", "batch_short() returned 1 results for 2 tasks; return one entry for each, in the same order"),
        ("text", "batch_text() returned a str; return a list, one entry for each task"),
    ],
)
def test_twin_that_returns_no_list_of_that_length_is_told(name, expected, sample):
    with Session(sample("batches"), [name]) as session, pytest.raises(BadResult) as caught:
        session.call_batch(name, [{"n": 1}, {"n": 2}], tasks(2))
    assert str(caught.value).startswith(expected)


def test_self_tests_pass_are_skipped_or_are_not_there(sample):
    with Session(sample("plain")) as session:
        assert (session.self_test("upper").state, session.self_test("upper").result) == ("passed", b'"ABCABC"')
        assert session.self_test("divide").state == "skipped"
        assert session.self_test("slowly").state == "none"
    with Session(sample("waiting")) as session:
        assert session.self_test("later").state == "passed"
        assert asyncio.run(session.self_test_async("double")).result == b"4"
    with Session(sample("loads")) as session:
        assert session.self_test("size").result == b"3"


def test_self_test_warms_the_twin_up_too(sample):
    adapter = sample("batches")
    with Session(adapter) as session:
        session.self_test("scale")
    assert adapter.module.CALLS == [{"value": [1.5], "offset": [0.0]} | {"factor": 2.0}]


AGREEING = [
    ("str", "'a'", "'a'"),
    ("float", "0.123456", "0.12..."),
    ("dict", "{'b': 1, 'a': 2}", "{'a': 2, 'b': 1}"),
    ("dict", "{'b': 1, 'a': [1, 2, 3]}", "{'b': 1, 'a': [1, ...]}"),
    ("tuple", "(1, 2)", "(1, 2)"),
    ("set", "{3, 1, 2}", "{1, 2, 3}"),
    ("None", "None", ""),
    ("list", "[1,\n    2]", "[1,\n     2]"),
    ("Point", "Point(1)", "Point(x=1)"),
    ("Point", "Point(1)", "{'x': 1}"),
]


@pytest.mark.parametrize(("hint", "value", "want"), AGREEING)
def test_example_agrees_with_the_value_its_text_or_its_json(hint, value, want, adapter_of):
    indented = want.replace("\n", "\n    ")
    adapter = adapter_of(
        f"from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n"
        f'def run_x() -> {hint}:\n    """X.\n\n    >>> run_x()\n    {indented}\n    """\n    return {value}\n'
    )
    with Session(adapter) as session:
        assert session.self_test("x").state == "passed"


def failing(adapter, name="x"):
    with Session(adapter) as session, pytest.raises(SelfTestFailed) as caught:
        session.self_test(name)
    return str(caught.value)


def test_example_that_says_something_else_is_told(adapter_of):
    source = 'def run_x(a: str) -> str:\n    """X.\n\n    >>> run_x("a")\n    \'B\'\n    """\n    return a'
    assert failing(adapter_of(source)) == (
        "run_x(): its example says 'B', but it returned 'a'; correct one of them (`...` stands for any text, "
        "`# doctest: +SKIP` keeps the example from being run)"
    )


def test_example_that_raises_or_returns_what_is_no_result_is_told(adapter_of):
    source = 'def {0}() -> float:\n    """X.\n\n    >>> {0}()\n    1.0\n    """\n    return {1}\n'
    adapter = adapter_of(source.format("run_x", "1 / 0") + source.format("run_y", "float('nan')"))
    assert failing(adapter) == "run_x(): its example does not work: it raised ZeroDivisionError: division by zero"
    assert failing(adapter, "y").startswith("run_y(): its example does not work: run_y() returned NaN")


def test_output_of_a_call_inside_a_line_is_not_compared(adapter_of):
    source = 'def run_x(a: int) -> int:\n    """X.\n\n    >>> run_x(1) + 1\n    2\n    """\n    return a'
    with Session(adapter_of(source)) as session:
        assert session.self_test("x").result == b"1"


def test_a_load_that_exits_is_named(adapter_of):
    adapter = adapter_of("import sys\n\ndef load_thing():\n    sys.exit(3)\n\ndef run_x(*, thing): ...\n")
    with pytest.raises(LoadError, match=r"load_thing\(\) failed: SystemExit: 3"), Session(adapter):
        pass


def test_an_example_that_exits_is_named(adapter_of):
    adapter = adapter_of('def run_x():\n    """X.\n\n    >>> run_x()\n    """\n    raise SystemExit(3)\n')
    with Session(adapter) as session, pytest.raises(SelfTestFailed, match=r"run_x\(\): .* SystemExit: 3"):
        session.self_test("x")
