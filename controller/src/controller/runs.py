"""The runs that this process is responsible for."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from runnerlib.contract import HistoryEntry, Progress, RunnerLevel, RunnerView
from taskqueue.tasks import Delivery, Placement


@dataclass(slots=True, eq=False)
class Run:
    """One attempt of one task, from its delivery to its outcome."""

    delivery: Delivery
    history: tuple[HistoryEntry, ...] = ()
    #: further deliveries of the same attempt, settled together with the first
    repeated: list[Delivery] = field(default_factory=list)
    #: must have a call for itself
    isolated: bool = False
    cancel_requested: bool = False
    #: when its cancel mark was first met, and when DELETE was last sent (monotonic)
    cancel_seen_at: float | None = None
    cancel_sent_at: float | None = None
    #: who has it; None while it waits for a runner
    runner: RunnerView | None = None
    boot: str | None = None
    #: when its runner was connected to, to be sent it (monotonic); None before
    sent_at: float | None = None
    #: as last written to the store
    placement: Placement | None = None
    progress: Progress | None = None
    reported: Progress | None = None
    #: since when its runner has called it running without a break (monotonic)
    running_since: float | None = None
    #: answers about this attempt that were not believed
    doubts: int = 0
    #: calls with this attempt that were lost before they arrived, in a row
    misses: int = 0
    #: the runner and its process that gave it back, not having ended it
    given_back_by: tuple[str, str | None] | None = None
    #: its outcome is decided and being committed: whatever is still heard of it changes nothing
    is_decided: bool = False

    @property
    def id(self) -> str:
        return self.delivery.id

    @property
    def key(self) -> tuple[str, int]:
        return self.delivery.id, self.delivery.attempt

    @property
    def deliveries(self) -> list[Delivery]:
        return [self.delivery, *self.repeated]

    @property
    def current_placement(self) -> Placement | None:
        """What the store should know of where it runs; None: nothing.

        Without a boot id nobody can attach to it: a plain runner has it, and it must not look as if it waited (it could
        expire). Without a runner it was placed, and handed back since: it waits again. One that is still to be attached
        to stays as the store has it.
        """
        if self.runner is not None and self.sent_at is not None:
            boot = (self.boot or self.runner.boot) if self.runner.level is RunnerLevel.FULL else ""
            return Placement(self.id, self.delivery.attempt, self.runner.id, boot)
        if self.boot is None and self.placement is not None and self.placement.runner:
            return Placement(self.id, self.delivery.attempt, "", "")
        return None

    def sent_to(self, runner: RunnerView, boot: str | None, now: float) -> None:
        self.runner, self.boot, self.sent_at = runner, boot, now
        self.running_since = None

    def handed_back(self) -> None:
        """Nobody has it now."""
        self.runner = self.boot = self.sent_at = self.cancel_sent_at = None
        self.progress = self.reported = self.running_since = None


class InFlight:
    """Runs by task id and attempt."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int], Run] = {}
        #: the ids that removed runs are noted in, one set for each look into the store
        self._removed: list[set[str]] = []

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __contains__(self, run: Run) -> bool:
        return self._runs.get(run.key) is run

    def find(self, delivery: Delivery) -> Run | None:
        return self._runs.get((delivery.id, delivery.attempt))

    def add(self, run: Run) -> None:
        self._runs[run.key] = run

    def remove(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run in self:
                del self._runs[run.key]
                for removed in self._removed:
                    removed.add(run.id)

    @contextmanager
    def noting_removed(self) -> Iterator[set[str]]:
        """The ids of runs that are removed until the end of the block, as they are removed."""
        removed: set[str] = set()
        self._removed.append(removed)
        try:
            yield removed
        finally:
            # by identity: two empty sets are equal
            self._removed = [each for each in self._removed if each is not removed]


def deliveries_of(runs: Sequence[Run]) -> list[Delivery]:
    return [delivery for run in runs for delivery in run.deliveries]
