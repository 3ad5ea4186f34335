"""How long to wait before a process that died is started again."""

FIRST_SECONDS = 0.5
MOST_SECONDS = 30.0
#: A process that was ready for so long, or lived for so long, was healthy: its next death starts from the first delay.
READY_SECONDS = 2.0
HEALTHY_SECONDS = 60.0


class Backoff:
    """The first delay, then twice as long each time, up to the longest."""

    def __init__(self, first_seconds: float = FIRST_SECONDS, most_seconds: float = MOST_SECONDS) -> None:
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._next_seconds = first_seconds

    def next_seconds(self, lived_seconds: float, ready_seconds: float = 0.0) -> float:
        """`ready_seconds`: how long it was ready before it died."""
        if lived_seconds >= HEALTHY_SECONDS or ready_seconds >= READY_SECONDS:
            self._next_seconds = self._first_seconds
        delay = self._next_seconds
        self._next_seconds = min(2 * delay, self._most_seconds)
        return delay
