"""The smallest runner: copy this folder, rename it, and put your own functions here."""

import math
import time


def run_upper(text: str) -> str:
    """Turn a text into capital letters.

    Args:
        text: Any text, in any language.

    >>> run_upper(text="plug and play")
    'PLUG AND PLAY'
    """
    return text.upper()


MAX_SECONDS = 3600
NAP_SECONDS = 0.2
OPTIONS = {"countdown": {"timeout_seconds": 3660}}


def run_countdown(seconds: int, *, task) -> str:
    """Count down, tell how far it is, and stop when asked to.

    A stand-in for anything slow. What stands right of the `*` is provided by the runner.

    Args:
        seconds: How long to count, 0 to 3600.

    >>> run_countdown(seconds=0)
    'lift-off after 0 s'
    """
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"seconds must be between 0 and {MAX_SECONDS}, not {seconds}")
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        # Ends the run when the task was cancelled; so the naps are short.
        task.progress(passed / seconds, f"{math.ceil(seconds - passed)} s to go")
        time.sleep(min(NAP_SECONDS, seconds - passed))
    task.progress(1.0, "lift-off")
    return f"lift-off after {seconds} s"
