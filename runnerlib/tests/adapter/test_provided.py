"""What handlers can ask for: their task, metrics, the device."""

import math
import sys
from pathlib import Path

import pytest

from runnerlib.adapter.provided import AUTO_DEVICE, Metrics, Task, TaskCancelled, found_device
from runnerlib.adapter.session import Session

TASK = Task("a", 1)


class Recorder:
    def __init__(self):
        self.reports = []
        self.cancelled = False

    def task(self, **options):
        return Task(
            "t", report=lambda fraction, message: self.reports.append((fraction, message)),
            is_cancelled=lambda: self.cancelled, **options,
        )  # fmt: skip


@pytest.fixture
def recorder():
    return Recorder()


def test_progress_is_reported_as_it_is(recorder):
    task = recorder.task()
    task.progress(0, "started")
    task.progress(0.5)
    task.progress(1.0000001)
    assert recorder.reports == [(0.0, "started"), (0.5, ""), (1.0, "")]


@pytest.mark.parametrize("fraction", [2, -1, math.nan, "0.5", True, None])
def test_what_is_no_fraction_is_refused(fraction, recorder):
    with pytest.raises(ValueError, match="from 0 to 1"):
        recorder.task().progress(fraction)


def test_progress_raises_once_the_task_was_cancelled(recorder):
    task = recorder.task()
    assert not task.cancelled
    recorder.cancelled = True
    assert task.cancelled
    with pytest.raises(TaskCancelled):
        task.progress(0.5)
    assert recorder.reports == []


def test_track_yields_everything_and_ends_at_one(recorder):
    assert list(recorder.task().track(range(1000), "counting")) == list(range(1000))
    assert recorder.reports[0] == (0.0, "counting")
    assert recorder.reports[-1] == (1.0, "counting")
    assert len(recorder.reports) < 100


def test_track_of_nothing_is_done(recorder):
    assert list(recorder.task().track([])) == []
    assert recorder.reports == [(1.0, "")]


def test_track_needs_to_know_how_many(recorder):
    with pytest.raises(TypeError, match="pass total="):
        recorder.task().track(iter([1, 2]))
    assert list(recorder.task().track(iter([1, 2]), total=2)) == [1, 2]


def test_track_stops_between_two_items_once_cancelled(recorder):
    seen = []
    with pytest.raises(TaskCancelled):
        for item in recorder.task().track(range(10)):
            seen.append(item)
            recorder.cancelled = item == 2
    assert seen == [0, 1, 2]


def test_cancelled_is_not_swallowed_by_except_exception():
    assert not issubclass(TaskCancelled, Exception)


def test_deadline_counts_down_and_never_below_zero(recorder):
    assert recorder.task().deadline is None
    assert 4 < recorder.task(deadline_seconds=5).deadline <= 5
    assert recorder.task(deadline_seconds=-1).deadline == 0


def test_the_folder_of_a_task_is_there_from_its_first_use_to_the_end_of_the_run() -> None:
    task = Task("t")
    task.close()  # nothing was asked for
    folder = task.folder
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("mine")
    (folder / "sub").chmod(0)
    assert folder == task.folder
    task.close()
    assert not folder.exists()


def test_asking_again_gives_the_same_metric():
    metrics = Metrics()
    metrics.counter("seen", "How many.", ["kind"]).labels("a").inc()
    metrics.counter("seen").labels("a").inc()
    metrics.gauge("size").set(3)
    metrics.histogram("seconds").observe(1)
    assert metrics.registry.get_sample_value("seen_total", {"kind": "a"}) == 2
    assert metrics.registry.get_sample_value("size") == 3


def test_one_name_cannot_be_two_kinds():
    metrics = Metrics()
    metrics.counter("seen")
    with pytest.raises(ValueError, match="'seen' is a counter already"):
        metrics.gauge("seen")


@pytest.fixture
def torch_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module `torch` as small as needed: a real one with a GPU is on few machines."""

    def make(source: str) -> None:
        (tmp_path / "torch.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torch", raising=False)

    yield make
    sys.modules.pop("torch", None)


def test_without_torch_it_is_the_cpu():
    assert found_device() == "cpu"


@pytest.mark.parametrize(
    ("source", "device"),
    [
        ("class cuda:\n    is_available = staticmethod(lambda: True)", "cuda"),
        ("class cuda:\n    is_available = staticmethod(lambda: False)", "cpu"),
        ("raise OSError('libcudart.so is missing')", "cpu"),
        ("raise ImportError('half installed')", "cpu"),
        ("raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')", "cpu"),
        ("raise NameError('_C')", "cpu"),
        ("", "cpu"),
    ],
)
def test_torch_is_asked(torch_says, source, device):
    torch_says(source)
    assert found_device() == device


def test_whoever_names_the_device_gets_what_was_found(torch_says, adapter_of):
    torch_says("class cuda:\n    is_available = staticmethod(lambda: True)")
    adapter = adapter_of(
        """
        def load_model(*, device) -> str:
            return f"on {device}"

        def run_where(*, model) -> str:
            return model
        """
    )
    with Session(adapter, device=AUTO_DEVICE) as session:
        assert session.call("where", {}, TASK) == "on cuda"
    with Session(adapter, device="cuda:1") as session:
        assert session.call("where", {}, TASK) == "on cuda:1"


def test_where_nobody_names_the_device_torch_is_not_imported(torch_says, adapter_of):
    torch_says("class cuda:\n    is_available = staticmethod(lambda: True)")
    with Session(
        adapter_of("def run_upper(text: str) -> str:\n    return text.upper()"), device=AUTO_DEVICE
    ) as session:
        assert session.call("upper", {"text": "a"}, TASK) == "A"
    assert "torch" not in sys.modules
