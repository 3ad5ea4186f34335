"""How many runs of an algorithm are expected to fit into one short call. Pure."""

#: Runs without a batched twin share a call up to this long: it saves messages, and hides nothing for longer.
SEQUENCE_SECONDS = 0.1
#: Weight of the latest run in the mean.
_WEIGHT = 0.2
#: A mean is believed after this many runs.
_ENOUGH = 3
MAX_SEQUENCE = 256


class Pace:
    """A moving mean of seconds for each algorithm; one long run makes it careful at once."""

    def __init__(self) -> None:
        self._means: dict[str, tuple[int, float]] = {}

    def note(self, algorithm: str, seconds: float) -> None:
        count, mean = self._means.get(algorithm, (0, seconds))
        self._means[algorithm] = (count + 1, max(seconds * _WEIGHT, mean + _WEIGHT * (seconds - mean)))

    def fitting(self, algorithm: str) -> int:
        count, mean = self._means.get(algorithm, (0, 0.0))
        if count < _ENOUGH:
            return 1
        return max(1, min(MAX_SEQUENCE, int(SEQUENCE_SECONDS / max(mean, 1e-6))))
