"""What changed after an index, so that who follows the catalogue is told that alone. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

#: Changes that are remembered; who asks for older ones is told everything.
MAX_CHANGES = 10_000
#: About as many bytes of descriptions are told in one answer, so that no reader is held up by one.
ANSWER_BYTES = 256 * 1024


@dataclass
class Delta:
    """Runners and algorithms that changed after one index, up to and including another."""

    index: int
    runners: list[str] = field(default_factory=list)
    algorithms: list[str] = field(default_factory=list)


class Changes:
    """The index of the last change of each runner and algorithm, in the order of their changes."""

    def __init__(self, most: int = MAX_CHANGES) -> None:
        self._most = most
        #: (is it a runner, its id or name) → index
        self._at: dict[tuple[bool, str], int] = {}
        self._complete_after = 0

    def note(self, index: int, runners: Iterable[str], algorithms: Iterable[str]) -> None:
        for key in [*((True, each) for each in runners), *((False, each) for each in algorithms)]:
            self._at.pop(key, None)
            self._at[key] = index
        while len(self._at) > self._most:
            self._complete_after = self._at.pop(next(iter(self._at)))

    def since(self, since: int, index: int, size: Callable[[str], int]) -> Delta | None:
        """None when not all of it is remembered. `size` tells the bytes of an algorithm's description."""
        if not self._complete_after <= since <= index:
            return None
        newer: list[tuple[tuple[bool, str], int]] = []
        for key, at in reversed(self._at.items()):
            if at <= since:
                break
            newer.append((key, at))
        delta, told = Delta(since), 0
        for (is_runner, name), at in reversed(newer):
            if told > ANSWER_BYTES and at > delta.index:
                return delta
            delta.index = at
            (delta.runners if is_runner else delta.algorithms).append(name)
            told += len(name) if is_runner else size(name)
        delta.index = index
        return delta
