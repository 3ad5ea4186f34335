"""torchvision is imported beside any torch; where its own operators load, nothing is declared."""

import subprocess
import sys
from pathlib import Path

import torch

import torchvision_cpu

HERE = Path(__file__).parent


def run(code: str) -> str:
    """In a process of its own: what is imported stays imported."""
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_transforms_can_be_imported_and_work() -> None:
    code = "import torchvision_cpu as t, torch; print(tuple(t.transforms().Resize((4, 4))(torch.zeros(3, 8, 8)).shape))"
    assert run(code) == "(3, 4, 4)"


def test_nothing_is_declared_where_the_operators_load(monkeypatch, tmp_path) -> None:
    (tmp_path / "_C.so").touch()
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    assert torchvision_cpu._loads(tmp_path)
    assert loaded == [str(tmp_path / "_C.so")]


def test_part_that_cannot_be_loaded_is_no_error(tmp_path) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")
    assert not torchvision_cpu._loads(tmp_path)


def test_preparing_twice_declares_once() -> None:
    assert torchvision_cpu.prepare() is torchvision_cpu.prepare()
