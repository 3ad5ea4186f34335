"""What all tests of runnerlib share. Tests that change the process's imports get them back."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runnerlib.adapter.errors import AdapterError
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import Adapter

ADAPTERS = Path(__file__).parent / "adapters"


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """An adapter stays in sys.modules and its folder on the path; the next test must not meet them."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name == "runner_adapter" or file.startswith(("/tmp", str(ADAPTERS))):
            del sys.modules[name]


@pytest.fixture
def sample() -> Callable[[str], Adapter]:
    """Loads one of the sample adapters by its folder's name."""
    return lambda name: load_adapter(ADAPTERS / name)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes an adapter's source (and other files beside it) and returns its path."""

    def write(source: str, **others: str) -> Path:
        for name, text in others.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        file = tmp_path / "runner_adapter.py"
        file.write_text(textwrap.dedent(source))
        return file

    return write


@pytest.fixture
def adapter_of(write: Callable[..., Path]) -> Callable[..., Adapter]:
    """Loads an adapter from its source."""

    def load(source: str, overrides: dict[str, str] | None = None, **others: str) -> Adapter:
        return load_adapter(write(source, **others), overrides or {})

    return load


@pytest.fixture
def problems_of(adapter_of: Callable[..., Adapter]) -> Callable[..., list[str]]:
    """The sentences that a source is refused with."""

    def problems(source: str, overrides: dict[str, str] | None = None, **others: str) -> list[str]:
        with pytest.raises(AdapterError) as caught:
            adapter_of(source, overrides, **others)
        return caught.value.problems

    return problems
