"""The catalogue as JSON, whole or only what changed after an index. Pure."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from runner_discovery.records import Offer, RunnerRecord
from runnerlib.contract import AlgorithmView, Catalogue

#: Remembered changes. A reader that asks for older ones gets the whole catalogue.
MAX_CHANGES = 10_000
#: Soft limit on the descriptions in one answer, so that parsing it does not block the reader for long.
ANSWER_BYTES = 256 * 1024


@dataclass
class Delta:
    """Runners and algorithms that changed after the requested index, up to and including `index`."""

    index: int
    runners: list[str] = field(default_factory=list)
    algorithms: list[str] = field(default_factory=list)


class Changes:
    """Remembers the index of the last change of each runner and algorithm, in order of change."""

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
        """Returns the changes after `since`, or None if some are no longer remembered.

        `size` returns the bytes of an algorithm's description. An answer may stop early, at a lower index.
        """
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


def catalogue_json(
    head: Catalogue,
    runners: Mapping[str, RunnerRecord],
    views: Mapping[str, AlgorithmView],
    known: Mapping[str, Offer],
) -> bytes:
    """Serialises `head` with these runners and algorithms, from descriptions that were serialised once."""
    parts = [head.model_dump_json(exclude={"runners", "algorithms"}).encode()[:-1], b',"runners":{']
    parts.append(b",".join(_member(each, record.view().model_dump_json().encode()) for each, record in runners.items()))
    parts.append(b'},"algorithms":{')
    parts.append(b",".join(_member(name, _view_json(view, known[name])) for name, view in views.items()))
    parts.append(b"}}")
    return b"".join(parts)


def _view_json(view: AlgorithmView, offer: Offer) -> bytes:
    rest = view.model_dump_json(exclude={"description"}).encode()
    return b'{"description":' + offer.json + b"," + rest[1:]


def _member(name: str, value: bytes) -> bytes:
    return json.dumps(name).encode() + b":" + value
