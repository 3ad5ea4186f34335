"""What to do about one runner whose folder may have changed: which changes count, and the next step. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from worker.runner_code import REQUIRED, version_of

#: A file that changes so often within this time is written by a program. Installing what is required takes longer, so
#: that what changes by being installed changes more slowly.
MOST_CHANGES = 6
_WINDOW_SECONDS, _REQUIRED_WINDOW_SECONDS = 60.0, 600.0
#: It counts again when it has stayed the same for this long; each further time for twice as long, until it
#: has been quiet for so many windows.
FIRST_REST_SECONDS, _MOST_REST_SECONDS = 10.0, 3600.0
_QUIET_WINDOWS = 10
#: In place of a file's name: which files there are.
NEW_FILES = "which modules there are"


class Step(Enum):
    """The next step of a runner."""

    NOTHING = "nothing"
    #: bring the version that is wanted, instead of one that may be on its way
    BRING = "bring"
    #: give up the version on its way: what is wanted is there already, or was refused before
    STAY = "stay"
    #: the folder is gone
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Versions:
    """A runner's versions, as digests of its code; None where there is none."""

    #: what runs
    serving: str | None = None
    #: what is being checked and started, to take over when it is ready
    coming: str | None = None
    #: the newest that could not take over
    refused: str | None = None
    leaving: bool = False


def next_step(wanted: str | None, versions: Versions) -> Step:
    """`wanted` is what the folder holds now; None when it is gone."""
    under_way = versions.coming is not None or versions.leaving
    if wanted is None:
        is_there = versions.serving is not None or versions.coming is not None
        return Step.LEAVE if is_there and not versions.leaving else Step.NOTHING
    if wanted == versions.coming:
        return Step.NOTHING
    if wanted in (versions.serving, versions.refused):
        return Step.STAY if under_way else Step.NOTHING
    return Step.BRING


@dataclass
class CountedChanges:
    """Tells the version of what a folder holds, in which no file counts that changes again and again by itself.

    A handler that writes modules into its runner's folder would else bring a new version for ever.
    """

    #: file → what it counts as while its changes do not count
    held: dict[str, str] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)
    _held_names: dict[str, str] = field(default_factory=dict)
    _times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _changed_at: dict[str, float] = field(default_factory=dict)
    _rests: dict[str, float] = field(default_factory=dict)
    _until: dict[str, float] = field(default_factory=dict)

    def look(self, digests: Mapping[str, str], now: float) -> str:
        """Takes note of what the folder holds `now`, in seconds; the version of it."""
        if self._last:
            for name in self._changed(digests):
                self._note(name, now)
        for name in [name for name, until in self._until.items() if now >= until]:
            self.held.pop(name, None)
            if name == NEW_FILES:
                self._held_names = {}
            del self._until[name]
            # Who saves once more is heard. What is installed changes by that once more: there it goes on as it was.
            if not name.startswith(REQUIRED):
                del self._times[name]
        self._last = dict(digests)
        return self.version_of(digests)

    def version_of(self, digests: Mapping[str, str]) -> str:
        """The version of such a state; takes no note of it."""
        names = self._held_names or digests
        return version_of({name: self.held.get(name) or digests.get(name) or names[name] for name in names})

    def _changed(self, digests: Mapping[str, str]) -> set[str]:
        changed = {name for name, digest in digests.items() if self._last.get(name, digest) != digest}
        return changed if digests.keys() == self._last.keys() else changed | {NEW_FILES}

    def _note(self, name: str, now: float) -> None:
        window = _REQUIRED_WINDOW_SECONDS if name.startswith(REQUIRED) else _WINDOW_SECONDS
        if now - self._changed_at.get(name, now) >= _QUIET_WINDOWS * window:
            self._rests.pop(name, None)
        self._changed_at[name] = now
        self._times[name] = [*(at for at in self._times[name] if now - at < window), now]
        if name not in self._until:
            if len(self._times[name]) < MOST_CHANGES:
                return
            self._rests[name] = min(2 * self._rests.get(name, FIRST_REST_SECONDS / 2), _MOST_REST_SECONDS)
            if name == NEW_FILES:
                self._held_names = self._last
            else:
                self.held[name] = self._last[name]
        self._until[name] = now + self._rests[name]

    @property
    def restless(self) -> dict[str, float]:
        """Whose changes do not count now → for how many seconds it must stay the same to count again."""
        return {name: self._rests[name] for name in sorted(self._until)}
