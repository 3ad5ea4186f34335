"""Runs a registry: wakes blocking queries on changes, expires leases by a timer, and writes snapshots to disk."""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from runner_discovery.conflicts import Conflict
from runner_discovery.records import SavedRunner
from runner_discovery.registry import KEEP_SECONDS, Registry
from runner_discovery.snapshot_file import SnapshotFile
from runner_discovery.turns import Turns
from runnerlib.service.component import Component
from runnerlib.service.lifecycle import StartupError, background
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Changes within this time are written together.
SNAPSHOT_DELAY_SECONDS = 0.2
#: Delay after a failed write.
SNAPSHOT_RETRY_SECONDS = 5.0
#: Minimum time between two wake-ups of blocking queries: runners that start together cause few answers, not one each.
WAKE_SECONDS = 0.1
#: A timer that fires this late shows that the process was suspended and could not receive renewals.
STALL_SECONDS = 2.0
#: Pause between two snapshots, as a multiple of the time that the last one took.
SNAPSHOT_REST = 60
#: Algorithms named in one log line.
_MOST_TOLD = 10
_OUTDATED = (
    "a runner offers algorithms with other schemas than the newest of its replicas; "
    "it gets no new work of them until it is updated"
)
_CLASH = (
    "a runner offers algorithms that belong to another runner, which registered them first; it gets no work of them"
)


class LiveRegistry(Component):
    """Use: ``async with LiveRegistry(SnapshotFile(path), lease_seconds=30) as live: live.registry``.

    Call :meth:`announce` after every change of the registry. `keeps` is as for `Registry.restore`.
    """

    def __init__(
        self,
        file: SnapshotFile,
        *,
        lease_seconds: float,
        keep_seconds: float = KEEP_SECONDS,
        keeps: Callable[[SavedRunner], bool] = lambda _: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = Registry(
            epoch=secrets.token_hex(8), clock=clock, lease_seconds=lease_seconds, keep_seconds=keep_seconds
        )
        self.turns = Turns(clock)
        self._keeps = keeps
        self._file = file
        self._clock = clock
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._released = False
        self._announced = 0
        #: index at the last wake-up; later changes do not answer queries yet
        self._woken = 0
        self._woken_at = -WAKE_SECONDS
        self._wake_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def _start(self, stack: AsyncExitStack) -> None:
        try:
            snapshot = await asyncio.to_thread(self._file.read)
        except OSError as error:
            raise StartupError(
                f"the snapshot {str(self._file.path)!r} cannot be read ({error.strerror}); "
                "set SNAPSHOT_PATH to a file that this user may read and write"
            ) from None
        if snapshot.runners or snapshot.algorithms:
            left_out = self.registry.restore(snapshot, self._keeps)
            if left_out:
                what = [each[:300] for each in left_out[:_MOST_TOLD]]
                log.warning("left out of what was remembered", count=len(left_out), what=what)
            log.info("remembered", runners=len(snapshot.runners), algorithms=len(snapshot.algorithms))
        self._tell_conflicts()
        self._announced = self._woken = self.registry.index
        self._arm()
        stack.push_async_callback(self._write_last)
        background(stack, self._write_changes(), "snapshot writer")
        stack.callback(self._disarm)
        stack.callback(self.release)

    def announce(self) -> None:
        """Publishes a change: wakes blocking queries and schedules a snapshot. Cheap if nothing changed."""
        self._arm()
        if self.registry.index == self._announced:
            return
        self._announced = self.registry.index
        self._dirty.set()
        self._wake_soon()
        self._tell_conflicts()

    async def wait_beyond(self, epoch: str | None, index: int, seconds: float) -> None:
        """Waits until the catalogue differs from (epoch, index), for at most `seconds`, or until the process stops."""
        if epoch not in (None, self.registry.epoch):
            return
        deadline = time.monotonic() + seconds
        while self._woken <= index <= self.registry.index and not self._released:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    def release(self) -> None:
        """Answers all blocking queries, present and future: the process is stopping."""
        self._released = True
        self._wake()

    # -- leases

    def _arm(self) -> None:
        """Keeps one timer, for the lease that ends first. Renewals only postpone ends, so it never fires too late."""
        due = self.registry.next_expiry()
        if due is None or self._timer is not None or self._released:
            return
        delay = max(0.0, due - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._expire, due)

    def _disarm(self) -> None:
        for timer in (self._timer, self._wake_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._wake_timer = None

    def _expire(self, due: float) -> None:
        self._timer = None
        late = self._clock() - due
        if late > STALL_SECONDS:
            log.warning("this process stood still; every runner gets a fresh lease", seconds=round(late, 1))
            self.registry.renew_all()
        for runner_id in self.registry.expire():
            log.warning("a runner's lease ran out", runner=runner_id)
        self.announce()

    # -- announcing

    def _wake_soon(self) -> None:
        """Wakes at once after a quiet period, otherwise when WAKE_SECONDS have passed since the last wake-up."""
        if self._wake_timer is None and not self._released:
            delay = self._woken_at + WAKE_SECONDS - time.monotonic()
            if delay <= 0:
                self._wake()
            else:
                self._wake_timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._wake_timer = None
        self._woken, self._woken_at = self.registry.index, time.monotonic()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _tell_conflicts(self) -> None:
        """Logs one line for each runner and kind of conflict: a runner may offer hundreds of algorithms."""
        told: dict[tuple[str, bool], list[Conflict]] = {}
        for conflict in self.registry.conflicts.take_new():
            told.setdefault((conflict.outdated, conflict.is_clash), []).append(conflict)
        for (runner, is_clash), conflicts in told.items():
            log.warning(
                _CLASH if is_clash else _OUTDATED,
                runner=runner,
                algorithms=sorted({each.algorithm for each in conflicts})[:_MOST_TOLD],
                **{"owners" if is_clash else "current": sorted({each.current for each in conflicts})[:_MOST_TOLD]},
                count=len(conflicts),
            )

    # -- memory

    async def _write_changes(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SNAPSHOT_DELAY_SECONDS)
            started_at = time.monotonic()
            written = await self._write()
            # A large snapshot is not written over and over while runners come and go.
            rest = SNAPSHOT_REST * (time.monotonic() - started_at)
            await asyncio.sleep(rest if written else max(rest, SNAPSHOT_RETRY_SECONDS))

    async def _write_last(self) -> None:
        """Writes even if nothing changed but the time for which owners have been away."""
        if self._dirty.is_set() or self.registry.has_owners_away:
            await self._write()

    async def _write(self) -> bool:
        self._dirty.clear()
        try:
            await asyncio.shield(asyncio.to_thread(self._file.write, self.registry.snapshot()))
        except OSError as error:
            self._dirty.set()
            log.warning(
                "the snapshot cannot be written; what is registered now would be lost with this process",
                path=str(self._file.path),
                reason=error.strerror,
            )
            return False
        except asyncio.CancelledError:
            self._dirty.set()
            raise
        return True
