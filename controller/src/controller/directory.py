"""The runners as this controller sees them: the catalogue, calls in flight, and who gets nothing for a while.

A runner that cannot be reached is in quarantine, with all its algorithms; one that is busy rests, for one algorithm.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from runnerlib.contract import AlgorithmView, Catalogue, Limits, RunnerView

FIRST_QUARANTINE_SECONDS = 1.0
LAST_QUARANTINE_SECONDS = 10.0
#: A runner that has refused everything for so long is a reason why tasks wait.
PENDING_AFTER_SECONDS = 2.0
#: So long is left between two calls to it after some time, if it asks for less.
LONGEST_OWN_PAUSE_SECONDS = 1.0
#: Runners that one sentence names.
MOST_REASONS = 3
#: A runner that is silent for so long is lost, when no catalogue says how long its lease is.
DEFAULT_LEASE_SECONDS = 30.0
#: Before discovery has answered.
_NO_CATALOGUE = Catalogue(
    epoch="", index=0, uptime_seconds=0, lease_seconds=DEFAULT_LEASE_SECONDS, runners={}, algorithms={}
)


class CatalogueSource(Protocol):
    """What the controller needs of `runnerlib.service.catalogue_watch.CatalogueWatch`."""

    @property
    def catalogue(self) -> Catalogue | None: ...

    @property
    def is_sure(self) -> bool: ...

    async def wait_changed(self, since: int) -> int: ...


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    since: float
    why: str
    #: of a quarantine: how long it is, and which process of the runner it is for
    seconds: float = 0.0
    boot: str = ""


class RunnerDirectory:
    """No sockets; `clock` gives monotonic seconds."""

    def __init__(self, source: CatalogueSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        #: (algorithm, runner) → calls in flight
        self._calls: Counter[tuple[str, str]] = Counter()
        self._quarantines: dict[str, _Pause] = {}
        #: by algorithm and runner
        self._pauses: dict[tuple[str, str], _Pause] = {}
        self._pauses_cleaned_at = clock()
        #: limits by algorithm and by runner, computed from this catalogue
        self._limits: dict[str, Limits] = {}
        self._shared: dict[str, tuple[RunnerView, list[Limits]]] = {}
        self._limits_of: Catalogue | None = None

    @property
    def is_sure(self) -> bool:
        return self._source.is_sure

    @property
    def _catalogue(self) -> Catalogue:
        return self._source.catalogue or _NO_CATALOGUE

    def algorithms(self) -> dict[str, AlgorithmView]:
        """All that were registered once."""
        return self._catalogue.algorithms

    def runner(self, runner_id: str) -> RunnerView | None:
        return self._catalogue.runners.get(runner_id)

    def known(self, algorithm: str) -> list[RunnerView]:
        """Live runners of its owner that offer the algorithm with its current schema."""
        view = self._catalogue.algorithms.get(algorithm)
        return [] if view is None else self._live(view.runners)

    def may_have_runs(self, algorithm: str) -> list[RunnerView]:
        """The same, and those with an outdated schema. Of another name's runner nothing is asked: it could lie."""
        view = self._catalogue.algorithms.get(algorithm)
        return [] if view is None else self._live([*view.runners, *view.outdated])

    def _live(self, runner_ids: Sequence[str]) -> list[RunnerView]:
        runners = self._catalogue.runners
        return [runners[each] for each in runner_ids if each in runners]

    def limits(self, algorithm: str) -> Limits:
        """Within the contract's bounds, whatever a registry says."""
        self._check_limits()
        known = self._limits.get(algorithm)
        if known is None:
            view = self.algorithms().get(algorithm)
            if view is None:
                return Limits()
            known = self._limits[algorithm] = view.description.limits.bounded()
        return known

    def shared_limits(self, runner: RunnerView) -> list[Limits]:
        """The limits of all that the runner offers; one of those with the same times."""
        self._check_limits()
        of, known = self._shared.get(runner.id, (None, []))
        if of is not runner:
            all_limits = [self.limits(each) for each in runner.algorithms]
            known = list({(each.timeout_seconds, each.batch): each for each in all_limits}.values())
            self._shared[runner.id] = runner, known
        return known

    def _check_limits(self) -> None:
        """Forgets the limits of an earlier catalogue."""
        if self._limits_of is not self._source.catalogue:
            self._limits_of = self._source.catalogue
            self._limits.clear()
            self._shared.clear()

    def loads(self, algorithm: str) -> dict[str, int]:
        """Runners that can be given work now → their calls in flight for this algorithm."""
        now = self._clock()
        return {
            runner.id: self._calls[algorithm, runner.id]
            for runner in self.known(algorithm)
            if self._free_at(algorithm, runner) <= now
        }

    def next_free_in_seconds(self, algorithm: str) -> float | None:
        """When the next runner's pause is over; None when no runner pauses."""
        now = self._clock()
        times = [self._free_at(algorithm, runner) - now for runner in self.known(algorithm)]
        return min((seconds for seconds in times if seconds > 0), default=None)

    def call_started(self, algorithm: str, runner_id: str) -> Callable[[], None]:
        """Counts one call in flight until what it returns is called; calling that again changes nothing."""
        key, over = (algorithm, runner_id), False
        self._calls[key] += 1

        def ended() -> None:
            nonlocal over
            if over:
                return
            over = True
            self._calls[key] -= 1
            if not self._calls[key]:
                del self._calls[key]

        return ended

    def quarantine(self, runner: RunnerView, why: str = "") -> float:
        """It could not be reached: no new work for a while, longer each time. Another boot id ends it."""
        before = self._quarantines.get(runner.id)
        catalogue = self._source.catalogue
        if before is None and catalogue is not None and self._source.is_sure:
            # Runner ids come and go without end; one that the catalogue no longer has needs no quarantine.
            live = catalogue.runners
            self._quarantines = {name: each for name, each in self._quarantines.items() if name in live}
        now = since = self._clock()
        seconds = FIRST_QUARANTINE_SECONDS
        if before is not None and before.boot == runner.boot:
            if before.until > now:
                return before.seconds
            seconds, since = min(LAST_QUARANTINE_SECONDS, before.seconds * 2), before.since
        self._quarantines[runner.id] = _Pause(now + seconds, since, why, seconds, runner.boot)
        return seconds

    def pause(self, algorithm: str, runner_id: str, seconds: float, why: str = "") -> None:
        """It is busy or draining: none of this algorithm's tasks for so long."""
        now = self._clock()
        if now - self._pauses_cleaned_at >= PENDING_AFTER_SECONDS:
            self._pauses_cleaned_at = now
            self._pauses = {key: pause for key, pause in self._pauses.items() if not _is_old(pause, now)}
        before = self._pauses.get((algorithm, runner_id))
        since = now if before is None or _is_old(before, now) else before.since
        # Whatever it asks for: one that has refused everything for long is not asked a hundred times a second.
        seconds = max(seconds, min(LONGEST_OWN_PAUSE_SECONDS, (now - since) / 10))
        self._pauses[algorithm, runner_id] = _Pause(now + seconds, since, why)

    def answered(self, runner_id: str) -> None:
        """It was reached: its next quarantine is a first one again."""
        if self._quarantines:
            self._quarantines.pop(runner_id, None)

    def has_accepted(self, algorithm: str, runner_id: str) -> None:
        """It took tasks of this algorithm: it is neither out of reach nor busy."""
        self.answered(runner_id)
        pause = self._pauses.get((algorithm, runner_id))
        # A pause that is not over stays: what answers now was sent before.
        if pause is not None and pause.until <= self._clock():
            del self._pauses[algorithm, runner_id]

    def is_unreachable(self, algorithm: str) -> bool:
        """Whether no runner of the algorithm could be reached when it was last tried."""
        if not self._quarantines:
            return False
        known = self.known(algorithm)
        return bool(known) and all(self._quarantine_of(runner) is not None for runner in known)

    def pending_reason(self, algorithm: str) -> str | None:
        """Why no runner has taken tasks of the algorithm for some time; None when one may."""
        if not self._quarantines and not self._pauses:
            return None
        now, reasons = self._clock(), []
        for runner in self.known(algorithm):
            pause = self._quarantine_of(runner)
            if pause is None:
                pause = self._pauses.get((algorithm, runner.id))
                if pause is None or _is_old(pause, now):
                    return None
            if now - pause.since < PENDING_AFTER_SECONDS:
                return None
            reasons.append(f"runner {runner.id} at {runner.host}: {pause.why}")
        if not reasons:
            return None
        cannot = "can be reached" if self.is_unreachable(algorithm) else "takes tasks now"
        return f"no runner that offers {algorithm!r} {cannot}: {'; '.join(reasons[:MOST_REASONS])}"

    def is_gone(self, runner_id: str, boot: str | None, silent_seconds: float) -> str | None:
        """Why a silent runner's process must be taken for dead, in words; None while it may come back."""
        view = self.runner(runner_id)
        if view is not None and boot and view.boot != boot:
            return f"runner {runner_id} was started anew"
        if view is None and self._source.catalogue is not None and self._source.is_sure:
            return f"runner {runner_id} is gone"
        lease = self._catalogue.lease_seconds
        return f"runner {runner_id} has not answered for {lease:g} s" if silent_seconds >= lease else None

    def has_left(self, runner_id: str, boot: str | None) -> bool:
        """Whether this process of the runner was stopped in order."""
        return boot is not None and self._catalogue.left.get(runner_id) == boot

    def _free_at(self, algorithm: str, runner: RunnerView) -> float:
        pause, quarantine = self._pauses.get((algorithm, runner.id)), self._quarantine_of(runner)
        return max(0.0 if pause is None else pause.until, 0.0 if quarantine is None else quarantine.until)

    def _quarantine_of(self, runner: RunnerView) -> _Pause | None:
        quarantine = self._quarantines.get(runner.id)
        return quarantine if quarantine is not None and quarantine.boot == runner.boot else None


def _is_old(pause: _Pause, now: float) -> bool:
    """Over for so long that the next one has nothing to do with it."""
    return pause.until + PENDING_AFTER_SECONDS <= now
