"""The packages are released together, at one version."""

import re
from pathlib import Path

import tomllib

import runnerlib

ROOT = Path(__file__).parent.parent


def test_packages_have_one_version_and_need_each_other_at_it():
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "pyproject.toml", *ROOT.glob("*/pyproject.toml")]]
    assert len(texts) == 7
    assert {tomllib.loads(text)["project"]["version"] for text in texts} == {runnerlib.__version__}
    needed = [version for text in texts for version in re.findall(r'"plugplay-[\w\[\],-]+==([^"]+)"', text)]
    assert set(needed) == {runnerlib.__version__}
    assert f"\n## {runnerlib.__version__} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
