"""The runs that this process is responsible for."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runnerlib.contract import HistoryEntry, Progress, RunnerLevel, RunnerView
from taskqueue.tasks import Delivery, Placement


@dataclass(slots=True, eq=False)
class Run:
    """One attempt of one task, from its delivery to its outcome. Times are monotonic seconds."""

    delivery: Delivery
    id: str = field(init=False)
    #: task id and attempt
    key: tuple[str, int] = field(init=False)
    history: tuple[HistoryEntry, ...] = ()
    #: further deliveries of the same attempt; they end together with the first
    repeated: list[Delivery] = field(default_factory=list)
    #: must have a call of its own
    isolated: bool = False
    cancel_requested: bool = False
    #: when its cancel mark was first seen, and when DELETE was last sent
    cancel_seen_at: float | None = None
    cancel_sent_at: float | None = None
    #: the runner that has it; None while it waits for one
    runner: RunnerView | None = None
    boot: str | None = None
    #: when its runner was connected to, to be sent it
    sent_at: float | None = None
    #: as last written to the store
    placement: Placement | None = None
    progress: Progress | None = None
    reported: Progress | None = None
    #: since when its runner has called it running without a break
    running_since: float | None = None
    #: answers about this attempt that were not believed
    disbelieved_answers: int = 0
    #: calls with this attempt that were lost before they arrived, in a row
    misses: int = 0
    #: the runner and its process that gave it back without having ended it
    given_back_by: tuple[str, str | None] | None = None
    #: its outcome is being committed: later answers change nothing
    is_committing: bool = False
    #: done once that is over, if somebody waits for it
    committed: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.id = self.delivery.id
        self.key = self.delivery.id, self.delivery.attempt

    @property
    def deliveries(self) -> list[Delivery]:
        return [self.delivery, *self.repeated]

    @property
    def current_placement(self) -> Placement | None:
        """The placement to persist, or None.

        One without a boot id is for a plain runner: no controller can attach to it, but it must not count as waiting,
        for then it could expire. A placement without a runner takes back an earlier one: the run was handed back and
        waits again. A run that is still to be attached to keeps the placement that the store has.
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
        """No runner has it any more."""
        self.runner = self.boot = self.sent_at = self.cancel_sent_at = None
        self.progress = self.reported = self.running_since = None


class InFlight:
    """Runs by task id and attempt."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int], Run] = {}
        #: one set of ids for each look into the store that is under way
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

    async def wait_for_earlier_attempts(self, deliveries: Iterable[Delivery]) -> None:
        """Waits while the attempts before these are being committed here.

        A retry is published before it is recorded, so it may be handed out before the store has its reason.
        """
        for delivery in deliveries:
            earlier = self._runs.get((delivery.id, delivery.attempt - 1)) if delivery.attempt > 1 else None
            if earlier is not None and earlier.is_committing:
                earlier.committed = earlier.committed or asyncio.get_running_loop().create_future()
                await asyncio.shield(earlier.committed)

    def end_commit(self, runs: Iterable[Run]) -> None:
        """Wakes those who wait in `wait_for_earlier_attempts`, whether it went well or not."""
        for run in runs:
            if run.committed is not None and not run.committed.done():
                run.committed.set_result(None)
            run.committed = None

    def remove(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if self._runs.get(run.key) is run:
                del self._runs[run.key]
                for removed in self._removed:
                    removed.add(run.id)

    @contextmanager
    def noting_removed(self) -> Iterator[set[str]]:
        """The ids of the runs that are removed until the end of the block, as they are removed."""
        removed: set[str] = set()
        self._removed.append(removed)
        try:
            yield removed
        finally:
            # by identity: two empty sets are equal
            self._removed = [each for each in self._removed if each is not removed]
