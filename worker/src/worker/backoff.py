"""How long to wait before a process that died is started again."""

FIRST_SECONDS = 0.5
MOST_SECONDS = 30.0
#: A process that lived this long was healthy; its next death starts from the first delay.
HEALTHY_SECONDS = 60.0


class Backoff:
    """0.5 s, then twice as long each time, up to 30 s."""

    def __init__(self, first_seconds: float = FIRST_SECONDS) -> None:
        self._first_seconds = first_seconds
        self._next_seconds = first_seconds

    def next_seconds(self, lived_seconds: float) -> float:
        if lived_seconds >= HEALTHY_SECONDS:
            self._next_seconds = self._first_seconds
        delay = self._next_seconds
        self._next_seconds = min(2 * delay, MOST_SECONDS)
        return delay
