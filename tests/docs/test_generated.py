"""What the pages repeat from the code is what the code says now."""

import re
import subprocess
import sys

from documents import ROOT

from runnerlib.contract import FailureCode


def test_what_is_generated_is_fresh() -> None:
    generator = ROOT / "docs" / "generate.py"
    done = subprocess.run([sys.executable, str(generator), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_failure_code_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "errors-and-retries.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(code.value for code in FailureCode)
