"""Two clocks: the wall for what people and other machines read, a steady one for leases and delays."""

import time
from collections.abc import Callable


class Clock:
    """Seconds since the epoch.

    `steady` starts at the wall's time and then only counts elapsed time: when somebody sets the wall clock an hour
    forth or back, no lease runs out early and no delayed task freezes.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def steady(self) -> float:
        return self._monotonic() + self._offset

    def to_steady(self, wall_time: float) -> float:
        """The same distance from now, on the steady clock."""
        return self.steady() + (wall_time - self.wall())
