"""Which device handlers compute on, where the operator does not say."""

import importlib
import importlib.util

#: The setting that leaves it to :func:`found_device`.
AUTO = "auto"


def found_device() -> str:
    """``cuda`` when the environment's torch can use a GPU, else ``cpu``. Imports torch where it is installed."""
    try:
        if importlib.util.find_spec("torch") is None:
            return "cpu"
        return "cuda" if importlib.import_module("torch").cuda.is_available() else "cpu"
    except (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError, NameError, AssertionError):
        # A torch that does not work, or does not fit its numpy: whoever needs it says so better, when it is loaded.
        return "cpu"
