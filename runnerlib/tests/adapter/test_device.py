"""Where the operator does not say, torch tells which device there is; torch is imported by nobody else."""

import sys
from pathlib import Path

import pytest

from runnerlib.adapter.device import AUTO, found_device
from runnerlib.adapter.session import Session
from runnerlib.adapter.task import Task

TASK = Task("a", 1)


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
    with Session(adapter, device=AUTO) as session:
        assert session.call("where", {}, TASK) == "on cuda"
    with Session(adapter, device="cuda:1") as session:
        assert session.call("where", {}, TASK) == "on cuda:1"


def test_where_nobody_names_the_device_torch_is_not_imported(torch_says, adapter_of):
    torch_says("class cuda:\n    is_available = staticmethod(lambda: True)")
    with Session(adapter_of("def run_upper(text: str) -> str:\n    return text.upper()"), device=AUTO) as session:
        assert session.call("upper", {"text": "a"}, TASK) == "A"
    assert "torch" not in sys.modules
