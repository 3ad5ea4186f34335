"""docs/settings.md is what the settings classes say now."""

import subprocess
import sys

from documents import ROOT


def test_the_settings_page_is_fresh() -> None:
    generator = ROOT / "docs" / "generate_settings.py"
    done = subprocess.run([sys.executable, str(generator), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
