"""Ends a process whose event loop stands still: it answers no requests then, and its supervisor starts it again."""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import traceback
from types import TracebackType

from typing_extensions import Self

from runnerlib.service.logs import get_logger

#: The exit code of a process that its watchdog ended; EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70
#: The loop is checked so many times within the limit, but at least each second.
_LOOKS = 10
_MAX_TICK_SECONDS = 1.0
#: Logging the end may take so long: perhaps the loop stands still because the log is not read.
_LAST_WORDS_SECONDS = 2.0
#: When not even a thread can run, the kernel ends the process after so many times the limit, in seconds of CPU time.
_CPU_FACTOR = 4

log = get_logger(__name__)


class LoopWatchdog:
    """A context in which `loop` must turn at least once in `seconds`; 0: it need not.

    Time counts as the watching thread sees it, so that a process that was frozen (SIGSTOP, a suspended machine) is not
    ended when it wakes. A call that holds Python's lock keeps that thread from watching; it uses CPU time, which is
    limited too (SIGPROF).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._tick = min(_MAX_TICK_SECONDS, seconds / _LOOKS)
        self._has_turned = True
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._seconds:
            faulthandler.register(signal.SIGPROF, file=2, chain=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self._seconds:
            self._left.set()
            self._thread.join()
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)

    def _watch(self) -> None:
        still = 0.0
        while not self._left.wait(self._tick):
            signal.setitimer(signal.ITIMER_PROF, self._seconds * _CPU_FACTOR)
            if self._has_turned:
                self._has_turned, still = False, 0.0
                self._loop.call_soon_threadsafe(self._turn)
            elif still >= self._seconds:
                self._end()
            else:
                still += self._tick

    def _turn(self) -> None:
        self._has_turned = True

    def _end(self) -> None:
        words = threading.Thread(target=self._say, daemon=True)
        words.start()
        words.join(_LAST_WORDS_SECONDS)
        os._exit(EXIT_CODE)

    def _say(self) -> None:
        log.critical(
            f"the event loop stood still for {self._seconds:g} s (WATCHDOG_SECONDS); the process ends now",
            traceback=_stacks({self._thread.ident, threading.get_ident()}),
        )


def _stacks(left_out: set[int | None]) -> str:
    """Where the other threads are."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()
        if number not in left_out
    )
