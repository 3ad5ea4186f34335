"""Decides the next step of a runner whose folder may have changed, and which changes count. Pure."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from worker.runner_code import REQUIRED, version_of

#: A file that changes this often within the window is written by a program. Installing requirements takes longer, so
#: that what changes by being installed changes more slowly.
MOST_CHANGES = 6
_WINDOW_SECONDS, _REQUIRED_WINDOW_SECONDS = 60.0, 600.0
#: A flapping file counts again after it has stayed the same for this long; each further time for twice as long, until
#: it has been quiet for so many windows.
FIRST_QUIET_SECONDS, _MOST_QUIET_SECONDS = 10.0, 3600.0
_FORGIVEN_AFTER_WINDOWS = 10
#: In place of a file's name: the list of files.
NEW_FILES = "which modules there are"


class Step(Enum):
    NOTHING = "nothing"
    #: start the wanted version, instead of one that may be on its way
    ROLL_OUT = "roll out"
    #: stop the rollout in progress: the wanted version is running already, or was refused before
    ABORT = "abort"
    #: the folder is gone
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A runner's versions; None where there is none."""

    serving: str | None = None
    #: being checked and started, to take over when it is ready
    coming: str | None = None
    #: the newest that could not take over
    refused: str | None = None
    leaving: bool = False


def next_step(wanted: str | None, state: RolloutState) -> Step:
    """`wanted` is the version that the folder holds now, None if it is gone."""
    in_progress = state.coming is not None or state.leaving
    if wanted is None:
        exists = state.serving is not None or state.coming is not None
        return Step.LEAVE if exists and not state.leaving else Step.NOTHING
    if wanted == state.coming:
        return Step.NOTHING
    if wanted in (state.serving, state.refused):
        return Step.ABORT if in_progress else Step.NOTHING
    return Step.ROLL_OUT


@dataclass
class _File:
    """When a file changed, and whether its changes are ignored."""

    #: within the window
    changes: list[float] = field(default_factory=list)
    last_change: float = math.inf
    #: for how long it must stay the same, once it flaps
    quiet_seconds: float = 0.0
    #: when it counts again; None: it counts
    until: float | None = None


@dataclass
class ChangeFilter:
    """Computes the version of what a folder holds, ignoring changes of files that change again and again by themselves.

    Otherwise a handler that writes modules into its runner's folder would cause a new version for ever.
    """

    #: flapping file → the digest that it counts with
    held: dict[str, str] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)
    #: the files that there were when new ones began to appear again and again
    _held_files: dict[str, str] = field(default_factory=dict)
    _files: defaultdict[str, _File] = field(default_factory=lambda: defaultdict(_File))

    def look(self, digests: Mapping[str, str], now: float) -> str:
        """Records what the folder holds at `now`, in seconds; returns its version."""
        if self._last:
            for name in self._changed(digests):
                self._record(name, now)
        for name, file in self._files.items():
            if file.until is None or now < file.until:
                continue
            file.until = None
            self.held.pop(name, None)
            if name == NEW_FILES:
                self._held_files = {}
            # A person who saves once more is heard. What is required changes once more by being installed: its changes
            # go on counting.
            if not name.startswith(REQUIRED):
                file.changes = []
        self._last = dict(digests)
        return self.version_of(digests)

    def version_of(self, digests: Mapping[str, str]) -> str:
        """The version of such a state, without recording it."""
        names = self._held_files or digests
        return version_of({name: self.held.get(name) or digests.get(name) or names[name] for name in names})

    def flapping(self) -> dict[str, float]:
        """Files whose changes are ignored now → for how many seconds they must stay the same to count again."""
        return {name: file.quiet_seconds for name, file in sorted(self._files.items()) if file.until is not None}

    def _changed(self, digests: Mapping[str, str]) -> set[str]:
        changed = {name for name, digest in digests.items() if self._last.get(name, digest) != digest}
        return changed if digests.keys() == self._last.keys() else changed | {NEW_FILES}

    def _record(self, name: str, now: float) -> None:
        file = self._files[name]
        window = _REQUIRED_WINDOW_SECONDS if name.startswith(REQUIRED) else _WINDOW_SECONDS
        if now - file.last_change >= _FORGIVEN_AFTER_WINDOWS * window:
            file.quiet_seconds = 0.0
        file.last_change = now
        file.changes = [*(at for at in file.changes if now - at < window), now]
        if file.until is None:
            if len(file.changes) < MOST_CHANGES:
                return
            file.quiet_seconds = min(2 * file.quiet_seconds or FIRST_QUIET_SECONDS, _MOST_QUIET_SECONDS)
            if name == NEW_FILES:
                self._held_files = self._last
            else:
                self.held[name] = self._last[name]
        file.until = now + file.quiet_seconds


def flapping_sentence(flapping: Mapping[str, float]) -> str:
    """What to tell the author; empty if nothing flaps."""
    if not flapping:
        return ""
    names = " and ".join(name.removeprefix(REQUIRED) for name in flapping)
    return (
        f"{names} changed {MOST_CHANGES} times within a short time and counts as it was until it stays the same for "
        f"{max(flapping.values()):g} s; the runner seems to write into its own folder, or what it requires changes by "
        "being installed: write to the folder for temporary files (TMPDIR) instead"
    )
