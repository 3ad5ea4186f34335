"""Holds back the tasks of one algorithm as its author wishes: `most_running`, `rate_per_second`. Pure: time is given.

Both hold for this controller. Several controllers know nothing of one another's runs: each keeps to them by itself.
"""

from collections.abc import Callable

from runnerlib.contract import Limits
from runnerlib.service.token_bucket import TokenBucket

#: So much of a second's tasks may start at once, so that a busy machine that is late keeps the rate.
BURST_SECONDS = 0.1


class Throttle:
    """`clock` gives monotonic seconds. Each call is given the limits, which change with the catalogue."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bucket: TokenBucket | None = None

    def free(self, limits: Limits, count_running: Callable[[], int]) -> int | None:
        """How many more tasks may be sent now; None: any number. `count_running` is called if it matters."""
        if limits.most_running is None and limits.rate_per_second is None:
            return None
        by_number = None if limits.most_running is None else max(0, limits.most_running - count_running())
        if limits.rate_per_second is None:
            return by_number
        bucket = self._bucket_for(limits.rate_per_second)
        # one that is all but there passes: else the time to wait for it would be nothing
        by_rate = 0 if bucket.wait_seconds(1, self._clock()) else max(1, int(bucket.level(self._clock())))
        return by_rate if by_number is None else min(by_rate, by_number)

    def sent(self, limits: Limits, count: int) -> None:
        if limits.rate_per_second is not None:
            self._bucket_for(limits.rate_per_second).take(count)

    def next_in_seconds(self, limits: Limits) -> float | None:
        """When the rate lets the next one start; None: it does now."""
        if limits.rate_per_second is None:
            return None
        return self._bucket_for(limits.rate_per_second).wait_seconds(1, self._clock()) or None

    def reason(
        self, algorithm: str, limits: Limits, count_running: Callable[[], int], *, any_ready: bool
    ) -> str | None:
        """Why its tasks wait now, if any do; None if nothing holds them back. `any_ready`: some wait here."""
        if limits.most_running is not None and count_running() >= limits.most_running:
            return f"{limits.most_running} tasks of {algorithm!r} run already, which is the most that may at a time"
        if any_ready and self.next_in_seconds(limits) is not None:
            return f"not more than {limits.rate_per_second:g} tasks of {algorithm!r} may start in a second"
        return None

    def _bucket_for(self, rate: float) -> TokenBucket:
        if self._bucket is None or self._bucket.rate != rate:
            self._bucket = TokenBucket(rate, max(1.0, rate * BURST_SECONDS), self._clock())
        return self._bucket
