"""All lanes of a controller: one appears when its algorithm first has a runner."""

import asyncio
import math
import time
from collections.abc import Callable

from controller.consumer import AlgorithmConsumer, ConsumerDependencies
from controller.directory import CatalogueSource, RunnerDirectory
from runnerlib.contract import Catalogue
from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Parts of this process's readiness.
CATALOGUE, LANES = "catalogue", "lanes"
LOOK_EVERY_SECONDS = 1.0
#: So many lanes are opened at once, and after a pause the next: each begins with looks into the store.
MOST_OPENED = 20
OPEN_AGAIN_SECONDS = 0.05
#: A lane whose algorithm has had no runner for so long, and that does nothing, is closed: names cost nothing for ever.
CLOSE_AFTER_SECONDS = 60.0
#: How often a stop looks whether the calls in flight have ended.
DRAIN_POLL_SECONDS = 0.05


class ConsumerSet:
    def __init__(
        self,
        directory: RunnerDirectory,
        source: CatalogueSource,
        tools: ConsumerDependencies,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._source = source
        self._tools = tools
        self._health = health
        self._clock = clock
        self._lanes: dict[str, AlgorithmConsumer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: lanes that are closed while the controller goes on
        self._closing: set[asyncio.Task[None]] = set()
        #: algorithm → since when it has no runner
        self._without: dict[str, float] = {}
        #: as it was when lanes were woken last
        self._seen: Catalogue | None = None
        health.set(CATALOGUE, False, "discovery has not answered yet")
        health.set(LANES, False, "starting")

    async def follow_catalogue(self) -> None:
        """For ever: opens lanes, and wakes them when runners come or go."""
        changes, looked_at = 0, -math.inf
        while True:
            is_all = self._open_lanes()
            if self._clock() - looked_at >= LOOK_EVERY_SECONDS:
                looked_at = self._clock()
                self._close_lanes()
                self._report_health()
            try:
                # not wait_for: before Python 3.12 it can swallow a cancellation
                async with asyncio.timeout(LOOK_EVERY_SECONDS if is_all else OPEN_AGAIN_SECONDS):
                    changes = await self._source.wait_changed(changes)
            except TimeoutError:
                continue
            except Exception:
                log.exception("following the catalogue failed; the lanes go on with what is known")
                await asyncio.sleep(LOOK_EVERY_SECONDS)
            self._wake_changed()

    def _wake_changed(self) -> None:
        """A catalogue keeps, object for object, what has not changed: thousands of lanes sleep on."""
        before, self._seen = self._seen, self._source.catalogue
        if self._seen is None:
            return
        runners, views = (before.runners, before.algorithms) if before is not None else ({}, {})
        changed = {name for name, view in self._seen.algorithms.items() if views.get(name) is not view}
        changed.update(views.keys() - self._seen.algorithms.keys())
        for runner_id, runner in self._seen.runners.items():
            if runners.get(runner_id) is not runner:
                changed.update(runner.algorithms)
        for algorithm in changed & self._lanes.keys():
            self._lanes[algorithm].wake()

    def _close_lanes(self) -> None:
        now, algorithms = self._clock(), self._directory.algorithms()
        for name in list(self._lanes):
            view = algorithms.get(name)
            if view is not None and view.runners:
                self._without.pop(name, None)
            elif now - self._without.setdefault(name, now) >= CLOSE_AFTER_SECONDS and self._lanes[name].is_idle:
                self._close(name)

    def _close(self, name: str) -> None:
        """The lane gives back what it has; it is opened anew when the algorithm has a runner again."""
        self._lanes.pop(name).stop()
        self._without.pop(name, None)
        task = self._tasks.pop(name)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        log.info("lane closed: no runner offers its algorithm", algorithm=name)

    def _open_lanes(self) -> bool:
        """Opens lanes of algorithms that have none and a runner; whether there are no more of them."""
        opened = 0
        for algorithm, view in self._directory.algorithms().items():
            if algorithm in self._lanes or not view.runners:
                continue
            if opened == MOST_OPENED:
                return False
            opened += 1
            lane = self._lanes[algorithm] = AlgorithmConsumer(algorithm, self._tools)
            self._tasks[algorithm] = asyncio.create_task(lane.run(), name=f"lane {algorithm}")
            log.info("lane opened", algorithm=algorithm)
        return True

    def held_up(self) -> dict[str, str]:
        """Algorithms whose tasks wait though runners offer them, and why."""
        return {name: why for name, lane in self._lanes.items() if (why := lane.held_up) is not None}

    def _report_health(self) -> None:
        if self._source.catalogue is not None:
            self._health.set(CATALOGUE, True)
        troubles = [f"{name}: {lane.trouble}" for name, lane in self._lanes.items() if lane.trouble]
        troubles += [f"{name}: ended" for name, task in self._tasks.items() if task.done()]
        self._health.set(LANES, not troubles, "; ".join(troubles))

    async def stop(self, grace_seconds: float) -> None:
        """Takes nothing more, waits for short calls, hands the rest back. Idempotent."""
        deadline = self._clock() + grace_seconds
        self._health.set(LANES, False, "stopping")
        for lane in self._lanes.values():
            lane.stop()
        tasks = [*self._tasks.values(), *self._closing]
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.1, grace_seconds))
        await self._drain(deadline, grace_seconds)
        for lane in self._lanes.values():
            await lane.abandon_calls()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, deadline: float, grace_seconds: float) -> None:
        """Waits for calls that may still end within the grace: one that is older than that is a long one."""
        while True:
            now = self._clock()
            ages = [
                0.0 if run.sent_at is None else now - run.sent_at for lane in self._lanes.values() for run in lane.runs
            ]
            if now >= deadline or not any(age < grace_seconds for age in ages):
                return
            await asyncio.sleep(min(DRAIN_POLL_SECONDS, deadline - now))
