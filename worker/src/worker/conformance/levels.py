"""The levels of the contract, each with all of those below it."""

from enum import IntEnum


class Level(IntEnum):
    """What a runner can be relied on for."""

    NONE = 0
    #: runs one task a call
    PLAIN = 1
    #: says what it offers, whether it can work, and when it is full
    OBSERVED = 2
    #: a run belongs to a task's attempt: it is attached to, superseded, cancelled, and outlives its caller
    DURABLE = 3
    #: takes many tasks in one call
    BATCHED = 4

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def means(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Level.NONE: "nothing that a controller could use",
    Level.PLAIN: "runs one task a call, and says what is wrong with it",
    Level.OBSERVED: "says what it offers, whether it can work, and when it is full",
    Level.DURABLE: "a run belongs to a task's attempt: attached to, superseded, cancelled, never lost with its caller",
    Level.BATCHED: "takes many tasks in one call",
}
#: All that can be reached.
LEVELS = tuple(level for level in Level if level is not Level.NONE)


def read_level(text: str) -> Level:
    """By name or number. Raises ValueError with a sentence."""
    for level in LEVELS:
        if text.strip().lower() in (level.word, str(level.value)):
            return level
    choices = ", ".join(f"{level.value} or {level.word}" for level in LEVELS)
    raise ValueError(f"{text!r} is no level; there are {choices}")
