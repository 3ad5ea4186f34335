"""Each child leads a group of its own: Ctrl-C in the terminal reaches the worker alone, a kill reaches all of it."""

import contextlib
import os
import signal


def end_group(pid: int) -> None:
    """Kills what is left of the group that process `pid` leads or led. Harmless when nothing is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def ask_to_stop(pid: int) -> None:
    """SIGTERM to the leader alone; it stops its own children in its own order."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
