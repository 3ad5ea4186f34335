"""A worker process never outlives the process that started it."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_OOM_SCORE_OF_WORKERS = "500"


def die_with(parent: int) -> None:
    """On Linux the kernel sees to it, whatever a handler does; elsewhere the end of the socket tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel was asked.
        os._exit(1)


def offer_memory_first() -> None:
    """When memory runs out, the kernel is to take a worker process and not the one that answers."""
    with suppress(OSError):
        _OOM_SCORE.write_text(_OOM_SCORE_OF_WORKERS)


def leave_signals_to_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the serving process decides what becomes of the runs.

    Handlers, not SIG_IGN: that would be inherited by what an author starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _nothing)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    return None
