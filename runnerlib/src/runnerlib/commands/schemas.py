"""``schemas``: every algorithm as it will be registered."""

import contextlib
import json
import sys
from pathlib import Path

from runnerlib.adapter.loading import load_adapter
from runnerlib.settings import option_overrides


def schemas(path: Path) -> int:
    """Prints a JSON list. Raises AdapterError."""
    with contextlib.redirect_stdout(sys.stderr):
        adapter = load_adapter(path, option_overrides())
    described = [one.model_dump(mode="json") for one in adapter.describe()]
    print(json.dumps(described, ensure_ascii=False, indent=2))
    return 0
