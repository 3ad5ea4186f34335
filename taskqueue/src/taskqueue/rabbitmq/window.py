"""How many messages a feed's consumer may hold, and when to tune it. Pure: times are given.

A consumer's prefetch cannot be changed while it consumes: a change is cancel, qos, consume. What the former consumer
was given stays out and does not count against the new one, so the new one gets what is left of the wanted number, and
is tuned again as those are settled. While tasks pass quickly it gets all at once: the overshoot is gone in a moment,
and the chase after the last few would not end. Then it is also tuned less often, and not for little: the broker takes
back what was on its way to the cancelled consumer, and counts that as failed deliveries.
"""

from collections import deque

#: Not more than this waits in one feed, whatever the prefetch.
MOST_BYTES = 64 * 1024 * 1024
#: AMQP's limit of one consumer's prefetch.
MOST_MESSAGES = 65_535
#: A chase after what former consumers have out tunes at most this often.
TUNE_AGAIN_SECONDS = 0.2
#: ... and while tasks pass quickly, at most this often, and for no less than a quarter more or less.
TUNE_FAST_SECONDS = 1.0
_WORTH_IT = 4
#: Turnover below this is slow, however little is out.
FAST_A_SECOND = 50
#: The mean size is over about so many messages.
_SIZE_SPAN = 200


class Window:
    """The messages of one channel: `out` is all that is unsettled, `former` what consumers before the live one got."""

    def __init__(self) -> None:
        self.count = 0
        self._sizes = 0
        self._mean_bytes = 0.0
        self.restart()

    def restart(self) -> None:
        """A new channel: nothing is out, nothing consumes."""
        self.out = 0
        self.former = 0
        self.granted = 0
        self._boundary = 0
        self._last_tag = 0
        self._tuned_at = float("-inf")
        self._tuned_for = 0
        self._settled: deque[tuple[float, int]] = deque()
        self._passed = 0

    @property
    def wanted(self) -> int:
        """The prefetch, bounded by what messages of this size take; in steps, so that it seldom changes."""
        most = MOST_MESSAGES
        if self._mean_bytes * most > MOST_BYTES:
            most = max(1, int(MOST_BYTES / self._mean_bytes))
            most = 1 << (most.bit_length() - 1)
        return min(self.count, most)

    @property
    def has_room(self) -> bool:
        """Whether the live consumer should be given whatever is ready."""
        return self.granted > self.out - self.former

    def arrived(self, tag: int, size: int) -> None:
        self.out += 1
        self._last_tag = tag
        self._sizes = min(self._sizes + 1, _SIZE_SPAN)
        self._mean_bytes += (size - self._mean_bytes) / self._sizes

    def settled(self, tags: list[int], now: float) -> None:
        self.out -= len(tags)
        if self.former:
            self.former -= sum(1 for tag in tags if tag <= self._boundary)
        self._settled.append((now, len(tags)))
        self._passed += len(tags)
        self._passing(now)

    def tune_in(self, now: float) -> float | None:
        """Seconds until the consumer is to be tuned; None when it is as it should be, or as well as it can be now."""
        wanted = self.wanted
        if wanted <= 0:
            return 0.0 if self.granted else None
        deficit = wanted - self.former - self.granted
        too_many = wanted < self._tuned_for and deficit < 0 and self.granted > 0
        if deficit < 1 and not too_many:
            return None
        if self.out == 0 and self._passing(now) < FAST_A_SECOND:
            return 0.0
        pause = TUNE_AGAIN_SECONDS
        if self.granted and self._is_fast(now):
            pause = TUNE_FAST_SECONDS
            if abs(wanted - self.granted) * _WORTH_IT < wanted:
                return None
        return max(0.0, self._tuned_at + pause - now)

    def retune(self, now: float) -> int:
        """The prefetch for the next consumer (0: none for now); the one before is cancelled."""
        wanted = self.wanted
        self.granted = wanted if self._is_fast(now) else max(0, wanted - self.out)
        self.former = self.out
        self._boundary = self._last_tag
        self._tuned_at, self._tuned_for = now, wanted
        return self.granted

    def _is_fast(self, now: float) -> bool:
        """Whether all that is out is likely to be settled within a second."""
        return self._passing(now) >= max(self.out, FAST_A_SECOND)

    def _passing(self, now: float) -> int:
        """How many were settled in the last second."""
        while self._settled and self._settled[0][0] < now - 1.0:
            self._passed -= self._settled.popleft()[1]
        return self._passed
