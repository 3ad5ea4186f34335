"""A token bucket: so many a second on average, and some at once after a rest. Pure: the time is given."""

#: Less than that is nothing but rounding.
_ROUNDING_SECONDS = 1e-6


class TokenBucket:
    """Lets `rate` a second pass, and `burst` at once after a rest.

    What costs more than `burst` passes when the bucket is full, and is paid off afterwards: nothing is too large to
    ever pass, and the mean rate holds all the same. Times are monotonic seconds.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """What would pass now; below 0 while something larger is paid off."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._level

    def wait_seconds(self, cost: float, now: float) -> float:
        """How long until it would pass; 0: it would now."""
        seconds = (min(cost, self._burst) - self.level(now)) / self.rate
        return seconds if seconds > _ROUNDING_SECONDS and cost > 0 else 0.0

    def take(self, cost: float) -> None:
        """Something passes."""
        self._level -= cost
