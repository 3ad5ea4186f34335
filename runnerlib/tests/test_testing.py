"""What authors use in their tests."""

import asyncio
import gc
from pathlib import Path

import pytest
from pydantic import ValidationError

from runnerlib.adapter.provided import Task
from runnerlib.testing import (
    AdapterError,
    BadResult,
    FakeFetch,
    FakeTask,
    Fetched,
    FetchFailed,
    FetchRefused,
    RunFailed,
    TaskCancelled,
    assert_adapter_contract,
    call,
    load,
    serving,
)

ADAPTERS = Path(__file__).parent / "adapters"
URL = "https://example.com/cat.png"


def test_fake_task_is_a_task_that_remembers():
    task = FakeTask()
    assert isinstance(task, Task)
    task.progress(0.5, "half")
    assert list(task.track(["a", "b"], "m")) == ["a", "b"]
    assert task.reports == [(0.5, "half"), (0.0, "m"), (0.5, "m"), (1.0, "m")]


def test_fake_task_can_be_cancelled_at_once_or_after_reports():
    task = FakeTask(cancel_after=1)
    task.progress(0.1)
    assert task.cancelled
    with pytest.raises(TaskCancelled):
        task.progress(0.2)
    task = FakeTask()
    task.cancel()
    with pytest.raises(TaskCancelled):
        next(task.track([1]))


def test_call_goes_through_validation_and_encoding():
    adapter = load(ADAPTERS / "plain")
    assert call(adapter, "upper", {"text": "a"}) == "A"
    with pytest.raises(ValidationError):
        call(adapter, "upper", {"text": 1})
    with pytest.raises(ZeroDivisionError):
        call(adapter, "divide", {"a": 1.0, "b": 0.0})
    with pytest.raises(LookupError, match="Did you mean 'upper'"):
        call(adapter, "uper", {})
    assert call(str(ADAPTERS / "shapes"), "default", {}) == {"width": 2.0, "colour": "red"}
    assert call(ADAPTERS / "waiting", "later", {"text": "a"}) == "a later"


def test_call_refuses_what_no_sender_would_get(write):
    with pytest.raises(BadResult, match="NaN"):
        call(write("def run_x():\n    return float('nan')"), "x", {})


def test_call_takes_fakes_for_provided_names():
    adapter = load(ADAPTERS / "loads")
    assert call(adapter, "size", {}, model=[1, 2]) == 2
    assert call(adapter, "size", {}, settings={"size": 5}) == 5
    assert call(adapter, "count", {"text": "a"}, device="x", model="ab") == "a2x"
    with pytest.raises(TypeError, match=r"run_size\(\) does not ask for 'modle', but for model, settings"):
        call(adapter, "size", {}, modle=1)
    task = FakeTask()
    call(ADAPTERS / "plain", "slowly", {"steps": 2}, task=task)
    assert task.reports[-1] == (1.0, "stepping")


def test_load_raises_sentences(write):
    with pytest.raises(AdapterError, match="has no type hint"):
        load(write("def run_x(a): ..."))


@pytest.mark.parametrize("name", ["plain", "shapes", "batches", "loads", "waiting"])
def test_samples_keep_the_contract(name):
    assert_adapter_contract(ADAPTERS / name)


def test_contract_names_every_mistake(write):
    with pytest.raises(AssertionError, match="has no type hint"):
        assert_adapter_contract(write("def run_x(a): ..."))


def test_contract_runs_examples_and_loads(adapter_of, tmp_path, write):
    doctest = '    """X.\n\n    >>> {0}()\n    2\n    """\n    return 1\n'
    path = write("".join(f"def {name}() -> int:\n" + doctest.format(name) for name in ("run_x", "run_y")))
    with pytest.raises(AssertionError) as caught:
        assert_adapter_contract(path)
    assert [line.split("(")[0] for line in str(caught.value).splitlines()] == ["run_x", "run_y"]


def test_serving_is_the_real_runner():
    with serving(ADAPTERS / "plain", environment={"OPTION_UPPER_RESULT_BYTES": "10"}) as runner:
        assert runner.run("upper", {"text": "abc"}) == "ABC"
        with pytest.raises(RunFailed) as caught:
            runner.run("upper", {"text": 1})
        assert caught.value.status == 422
        with pytest.raises(RunFailed) as caught:
            runner.run("upper", {"text": "a" * 20})
        assert caught.value.code == "bad_result"


def test_serving_shows_why_a_runner_does_not_start(write):
    with pytest.raises(RuntimeError, match="parameter 'a' has no type hint"), serving(write("def run_x(a): ...")):
        pass


def test_the_folder_of_a_fake_task_can_be_looked_into_as_long_as_the_task_is_there() -> None:
    task = FakeTask()
    folder = task.folder
    (folder / "file").write_text("mine")
    assert (folder, [one.name for one in folder.iterdir()]) == (task.folder, ["file"])
    del task
    gc.collect()
    assert not folder.exists()


def test_a_fake_gives_what_it_was_told_and_remembers():
    fetch = FakeFetch({URL: b"png", "https://b/": Fetched(b"b", "text/html", "https://c/")})
    assert fetch(URL, accept="image/*") == Fetched(b"png", "image/png", URL)
    assert fetch("https://b/").url == "https://c/"
    assert asyncio.run(fetch.aio(URL)).content == b"png"
    assert fetch("data:,a").content == b"a"
    assert fetch.asked == [URL, "https://b/", URL, "data:,a"]


def test_a_fake_fails_as_the_real_one_does():
    fetch = FakeFetch({URL: b"png", "https://gone/": 404, "https://down/": 503, "https://odd/": KeyError("odd")})
    for url, named, error in [
        ("https://gone/", {}, FetchRefused),
        ("https://down/", {}, FetchFailed),
        ("https://odd/", {}, KeyError),
        (URL, {"accept": "text/*"}, FetchRefused),
        (URL, {"max_bytes": 2}, FetchRefused),
        ("https://nobody/told", {}, AssertionError),
    ]:
        with pytest.raises(error):
            fetch(url, **named)


def test_an_adapter_is_called_with_a_fake(write):
    adapter = write("def run_size(url: str, *, fetch) -> int:\n    return len(fetch(url).content)")
    assert call(adapter, "size", {"url": URL}, fetch=FakeFetch({URL: b"123"})) == 3
    assert call(adapter, "size", {"url": "data:,abcd"}) == 4
