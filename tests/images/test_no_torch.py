"""A heavy runner lives beside light ones: what it brings is in its own environment and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def imports(python: Path | str, module: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(python), "-I", "-c", f"import {module}"], capture_output=True, text=True)


def test_light_runners_and_the_services_have_no_torch(runner_pythons: dict[str, Path]) -> None:
    assert imports(runner_pythons["meme-classifier"], "torch").returncode == 0
    for python in (runner_pythons["nlp"], runner_pythons["text"], sys.executable):
        for module in ("torch", "torchvision"):
            assert f"No module named '{module}'" in imports(python, module).stderr, python
    assert imports(runner_pythons["text"], "runnerlib").returncode == 0
