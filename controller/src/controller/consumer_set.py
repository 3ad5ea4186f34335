"""All consumers of a controller: one appears when its algorithm first has a runner."""

import asyncio
import math
import time

from controller.consumer import AlgorithmConsumer, ConsumerDependencies
from controller.directory import CatalogueSource, RunnerDirectory
from runnerlib.contract import Catalogue
from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Parts of this process's readiness. The second one is about the consumers.
CATALOGUE, CONSUMERS = "catalogue", "consumers"
LOOK_EVERY_SECONDS = 1.0
#: So many consumers are started at once, and after a pause the next: each begins with queries.
MOST_STARTED = 20
START_MORE_SECONDS = 0.05
#: A consumer whose algorithm has had no runner for so long, and that has no task, is stopped: old names cost nothing.
STOP_AFTER_SECONDS = 60.0
#: How often a stop looks whether the calls in flight have ended.
DRAIN_POLL_SECONDS = 0.05


class ConsumerSet:
    def __init__(
        self,
        directory: RunnerDirectory,
        source: CatalogueSource,
        dependencies: ConsumerDependencies,
        health: Health,
    ) -> None:
        self._directory = directory
        self._source = source
        self._dependencies = dependencies
        self._health = health
        self._consumers: dict[str, AlgorithmConsumer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: tasks of consumers that stop while the controller continues
        self._stopping: set[asyncio.Task[None]] = set()
        #: algorithm → since when it has no runner
        self._without: dict[str, float] = {}
        #: the catalogue when consumers were last woken
        self._seen: Catalogue | None = None
        health.set(CATALOGUE, False, "discovery has not answered yet")
        health.set(CONSUMERS, False, "starting")

    async def follow_catalogue(self) -> None:
        """For ever: starts consumers, stops idle ones, and wakes them when runners come or go."""
        changes, looked_at = 0, -math.inf
        while True:
            all_started = self._start_some()
            if self._source.catalogue is not None:
                self._health.set(CATALOGUE, True)
            if time.monotonic() - looked_at >= LOOK_EVERY_SECONDS:
                looked_at = time.monotonic()
                self._stop_idle()
                self._report_health()
            try:
                # not wait_for: before Python 3.12 it can swallow a cancellation
                async with asyncio.timeout(LOOK_EVERY_SECONDS if all_started else START_MORE_SECONDS):
                    changes = await self._source.wait_changed(changes)
            except TimeoutError:
                continue
            except Exception:
                log.exception("following the catalogue failed; the consumers continue with what is known")
                await asyncio.sleep(LOOK_EVERY_SECONDS)
            self._wake_changed()

    def _start_some(self) -> bool:
        """Starts consumers of algorithms that have a runner; returns whether all have one."""
        started = 0
        for algorithm, view in self._directory.algorithms().items():
            if algorithm in self._consumers or not view.runners:
                continue
            if started == MOST_STARTED:
                return False
            started += 1
            consumer = self._consumers[algorithm] = AlgorithmConsumer(algorithm, self._dependencies)
            self._tasks[algorithm] = asyncio.create_task(consumer.run(), name=f"consumer {algorithm}")
            log.info("consumer started", algorithm=algorithm)
        return True

    def _stop_idle(self) -> None:
        now, algorithms = time.monotonic(), self._directory.algorithms()
        for name, consumer in list(self._consumers.items()):
            view = algorithms.get(name)
            if view is not None and view.runners:
                self._without.pop(name, None)
            elif now - self._without.setdefault(name, now) >= STOP_AFTER_SECONDS and consumer.is_idle:
                # It gives back what it has; another one starts when the algorithm has a runner again.
                consumer.stop()
                del self._consumers[name], self._without[name]
                task = self._tasks.pop(name)
                self._stopping.add(task)
                task.add_done_callback(self._stopping.discard)
                log.info("consumer stopped: no runner offers its algorithm", algorithm=name)

    def _wake_changed(self) -> None:
        """A catalogue keeps, object for object, what has not changed: thousands of consumers sleep on."""
        before, self._seen = self._seen, self._source.catalogue
        if self._seen is None:
            return
        runners, views = (before.runners, before.algorithms) if before is not None else ({}, {})
        changed = {name for name, view in self._seen.algorithms.items() if views.get(name) is not view}
        changed.update(views.keys() - self._seen.algorithms.keys())
        for runner_id, runner in self._seen.runners.items():
            if runners.get(runner_id) is not runner:
                changed.update(runner.algorithms)
        for algorithm in changed & self._consumers.keys():
            self._consumers[algorithm].wake()

    def wake_all(self) -> None:
        """Something was paused or resumed."""
        for consumer in self._consumers.values():
            consumer.wake()

    def pending_reasons(self) -> dict[str, str]:
        """Algorithms whose tasks wait although runners offer them, and why."""
        return {name: why for name, consumer in self._consumers.items() if (why := consumer.pending_reason) is not None}

    def _report_health(self) -> None:
        troubles = [f"{name}: {consumer.trouble}" for name, consumer in self._consumers.items() if consumer.trouble]
        troubles += [f"{name}: ended" for name, task in self._tasks.items() if task.done()]
        self._health.set(CONSUMERS, not troubles, "; ".join(troubles))

    async def stop(self, grace_seconds: float) -> None:
        """Takes nothing more, waits for short calls, hands the rest back."""
        deadline = time.monotonic() + grace_seconds
        self._health.set(CONSUMERS, False, "stopping")
        for consumer in self._consumers.values():
            consumer.stop()
        tasks = [*self._tasks.values(), *self._stopping]
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.1, grace_seconds))
        await self._drain(deadline, grace_seconds)
        for consumer in self._consumers.values():
            await consumer.abandon_calls()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, deadline: float, grace_seconds: float) -> None:
        """Waits for calls that may still end within the grace: one that is older than that is a long one."""
        while (now := time.monotonic()) < deadline:
            runs = [run for consumer in self._consumers.values() for run in consumer.runs]
            if not any(run.sent_at is None or now - run.sent_at < grace_seconds for run in runs):
                return
            await asyncio.sleep(min(DRAIN_POLL_SECONDS, deadline - now))
