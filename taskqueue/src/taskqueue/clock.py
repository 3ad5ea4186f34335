"""Two clocks: wall time for people and other machines, a steady one for leases and delays."""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

_log = logging.getLogger(__name__)

#: A wall clock that moves by so much against a steady one was set, and not just corrected.
JUMP_SECONDS = 600.0


class Now(NamedTuple):
    """One point in time, by both clocks."""

    wall: float
    steady: float


class Clock:
    """Seconds since the epoch.

    `steady` starts at the wall's time and then only counts elapsed time: when the wall clock is set an hour forwards or
    back, no lease ends early and no delayed task freezes.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self._offset = wall() - time.monotonic()

    def steady(self) -> float:
        return time.monotonic() + self._offset

    def now(self) -> Now:
        return Now(self.wall(), self.steady())


def since_boot() -> float:
    """Seconds since the machine started, including those in which it slept; no one can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class GuardedWall:
    """The wall clock for decisions that lose something: what expires, what is old.

    A jump forwards is ignored for a while: a clock that was set by mistake is set back soon, and what was dropped
    meanwhile is gone.
    """

    def __init__(
        self,
        believe_after_seconds: float = 600.0,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = since_boot,
    ) -> None:
        self._believe_after_seconds = believe_after_seconds
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._jump = 0.0
        self._jumped_at = float("-inf")

    def __call__(self) -> float:
        """Seconds since the epoch, without a jump that is not yet accepted."""
        wall, steady = self._wall(), self._steady()
        jump = wall - steady - self._offset
        if abs(jump - self._jump) > JUMP_SECONDS:
            _log.warning("the wall clock was set by %.0f s; nothing expires or is dropped for that reason yet", jump)
            self._jump, self._jumped_at = jump, steady
        if self._jump > 0 and steady - self._jumped_at < self._believe_after_seconds:
            return wall - jump
        return wall

    def is_sure(self, for_seconds: float) -> bool:
        """Whether the clock has not jumped for so many seconds."""
        self()
        return self._steady() - self._jumped_at >= for_seconds
