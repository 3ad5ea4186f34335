"""What is done from time to time: tasks that nobody will take are failed, old finished ones are dropped."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from controller.admission import unknown_algorithm
from controller.completer import Completer
from controller.directory import RunnerDirectory
from controller.outcomes import Fail
from controller.runs import Run
from controller.store_gate import StoreGate
from controller.triage import EXPIRED
from runnerlib.service.logs import get_logger
from taskqueue.clock import GuardedWall
from taskqueue.errors import TaskQueueError
from taskqueue.protocols import Sweeper, TaskStore
from taskqueue.tasks import Delivery

log = get_logger(__name__)

SWEEP_EVERY_SECONDS = 1.0
SWEEP_LIMIT = 500
#: What was noted of waiting tasks is written again after this long, and other controllers' old notes are dropped.
NOTE_AGAIN_SECONDS = 20.0
PURGE_EVERY_SECONDS = 3600.0
PURGE_LIMIT = 1000
#: A wall clock that jumped is believed after this long: what it makes expire, and what it makes old.
SWEEP_AFTER_JUMP_SECONDS = 600.0
PURGE_AFTER_JUMP_SECONDS = 86_400.0
#: No task has waited since before that: with it a sweep finds expired ones alone.
_LONG_AGO = 0.0


class Maintenance:
    def __init__(
        self,
        sweeper: Sweeper,
        store: TaskStore,
        gate: StoreGate,
        directory: RunnerDirectory,
        completer: Completer,
        *,
        held_up: Callable[[], Mapping[str, str]],
        unknown_grace_seconds: float,
        retention_seconds: float,
        clock: GuardedWall | None = None,
    ) -> None:
        self._sweeper = sweeper
        self._store = store
        self._gate = gate
        self._directory = directory
        self._completer = completer
        self._held_up = held_up
        self._noted: dict[str, str] = {}
        self._noted_at = float("-inf")
        self._unknown_grace_seconds = unknown_grace_seconds
        self._retention_seconds = retention_seconds
        self._clock = clock or GuardedWall()

    async def sweep_for_ever(self) -> None:
        """What could not be settled comes again when its lease is over."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_SECONDS)
            try:
                while await self.sweep() == SWEEP_LIMIT:
                    pass
                await self.note()
            except TaskQueueError as error:
                log.warning("sweeping waits for the queue", reason=str(error))
            except Exception:
                log.exception("sweeping failed; it is tried again")

    async def purge_for_ever(self) -> None:
        """At the start and then each hour; no task that has not ended is touched."""
        while True:
            try:
                while await self.purge() == PURGE_LIMIT:
                    pass
            except TaskQueueError as error:
                log.warning("purging waits for the store", reason=str(error))
            except Exception:
                log.exception("purging failed; it is tried again")
            await asyncio.sleep(PURGE_EVERY_SECONDS)

    async def sweep(self) -> int:
        """Fails tasks that expired while they waited, and those whose algorithm surely nobody knows."""
        if not self._gate.is_open or not self._clock.is_sure(SWEEP_AFTER_JUMP_SECONDS):
            return 0
        now = self._clock()
        known = self._directory.algorithms()
        unknown_before = now - self._unknown_grace_seconds if self._directory.is_sure else _LONG_AGO
        # insisted on, so that a store that is away is noticed while nothing else is asked of it
        deliveries = await self._gate.retry_until_available(
            "sweeping", lambda: self._sweeper.sweep(known.keys(), unknown_before, SWEEP_LIMIT)
        )
        if deliveries:
            await self._completer.complete([(Run(each), _verdict(each, known, now)) for each in deliveries])
        return len(deliveries)

    async def note(self) -> None:
        """Writes down why tasks wait that runners could take, so that gateways can tell it."""
        now, held_up = self._clock(), dict(self._held_up())
        if not self._gate.is_open or (held_up == self._noted and abs(now - self._noted_at) < NOTE_AGAIN_SECONDS):
            return
        await self._store.note_waiting(held_up, [name for name in self._noted if name not in held_up])
        self._noted, self._noted_at = held_up, now

    async def purge(self) -> int:
        if not self._clock.is_sure(PURGE_AFTER_JUMP_SECONDS):
            log.warning("the wall clock was set; old finished tasks are kept for a day, so that it can be set right")
            return 0
        count = await self._store.purge(self._clock() - self._retention_seconds, PURGE_LIMIT)
        if count:
            log.info("old finished tasks dropped", count=count)
        return count


def _verdict(delivery: Delivery, known: Iterable[str], now: float) -> Fail:
    if delivery.expires_at is not None and delivery.expires_at <= now:
        return EXPIRED
    return unknown_algorithm(delivery.algorithm, known)
