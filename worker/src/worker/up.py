"""A running environment: discovery, services, runners; started in that order, stopped in one that loses nothing."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol

from worker.build_progress import BuildProgress
from worker.environments import Report
from worker.errors import EnvironmentBroken, PortTaken, StartFailed
from worker.output import Output
from worker.plan import MARK, Layout
from worker.ports import environment_of, is_free, listener_pid, taken_sentence
from worker.processes import ManagedProcess, ProcessPlan
from worker.runners import RunnerFolder
from worker.state_file import EnvironmentState, data_folder_owned, state_written

#: Processes of a worker that was killed here a moment ago end by themselves within their grace and this time.
_LEFTOVERS_SECONDS = 8.0
#: How often a process that was ready is looked at, to tell when it is ready again after a new start.
_LOOK_SECONDS = 0.5


class Interpreters(Protocol):
    """Where runners get their Python from; an EnvironmentBuilder, but for tests that save its time."""

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        """Raises EnvironmentBroken."""


class Environment:
    """``async with Environment(...)``: everything is started on entering and stopped on leaving.

    A runner whose virtual environment cannot be made is left out (`broken`); the others go on.
    """

    def __init__(self, layout: Layout, runners: list[RunnerFolder], builder: Interpreters, output: Output) -> None:
        self.layout = layout
        self.runners: list[ManagedProcess] = []
        self.broken: dict[str, str] = {}
        self.is_stopping = False
        self._folders = runners
        self._builder = builder
        self._output = output
        self._discovery = ManagedProcess(layout.discovery(), output)
        self._services = [ManagedProcess(plan, output) for plan in layout.services()]
        self._announcements: list[asyncio.Task[None]] = []
        self._files = ExitStack()

    async def __aenter__(self) -> "Environment":
        try:
            self._files.enter_context(data_folder_owned(self.layout.data))
            await self._check_ports()
            plans = await self._make_environments()
            await self._start(self._discovery)
            for service in self._services:
                await self._start(service)
            self._start_runners(plans)
            self._files.enter_context(state_written(self.layout.data, self._state()))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    def kill(self) -> None:
        """Ends everything at once."""
        for process in self._all():
            process.kill()

    async def _check_ports(self) -> None:
        uses = self.layout.ports(self._folders)
        host = self.layout.settings.host
        deadline = time.monotonic() + self.layout.settings.grace_seconds + _LEFTOVERS_SECONDS
        for use in uses:
            while not is_free(host, use.port):
                if time.monotonic() > deadline or not self._is_leftover(use.port):
                    raise PortTaken(taken_sentence(host, use))
                await asyncio.sleep(0.1)

    def _is_leftover(self, port: int) -> bool:
        """We own the data folder, so a process that carries its mark lost its worker and is about to end."""
        pid = listener_pid(port)
        if pid is None:
            return is_free(self.layout.settings.host, port)
        return environment_of(pid).get(MARK) == str(self.layout.data)

    async def _make_environments(self) -> list[ProcessPlan]:
        with BuildProgress(self._output) as progress:
            made = await asyncio.gather(*(self._make(runner, progress) for runner in self._folders))
        return [plan for plan in made if plan is not None]

    async def _make(self, runner: RunnerFolder, progress: BuildProgress) -> ProcessPlan | None:
        try:
            python = await self._builder.ensure(runner, progress.step)
        except EnvironmentBroken as error:
            self.broken[runner.name] = str(error)
            self._output.say(f"{runner.name} is left out: {error}")
            return None
        progress.done(runner.name)
        return self.layout.runner(runner, python)

    async def _start(self, process: ManagedProcess) -> None:
        """Everything else needs it: waits until it is ready. Raises StartFailed."""
        process.start()
        started_at = time.monotonic()
        await process.wait_ready(self.layout.settings.start_seconds, most_restarts=1)
        self._say_ready(process, time.monotonic() - started_at)
        self._announcements.append(asyncio.create_task(self._announce(process)))

    def _start_runners(self, plans: Iterable[ProcessPlan]) -> None:
        for plan in plans:
            runner = ManagedProcess(plan, self._output)
            self.runners.append(runner)
            runner.start()
            self._announcements.append(asyncio.create_task(self._announce(runner)))

    async def _announce(self, process: ManagedProcess) -> None:
        """Loading a model may take minutes: nobody waits for it, but everybody is told, also after each new start."""
        while not process.has_given_up:
            if process.is_ready:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            started_at = time.monotonic()
            try:
                await process.wait_ready(self.layout.settings.load_seconds)
            except StartFailed as error:
                self._output.say(str(error))
            else:
                self._say_ready(process, time.monotonic() - started_at)

    def _say_ready(self, process: ManagedProcess, seconds: float) -> None:
        self._output.say(f"{process.plan.name} is ready after {seconds:.1f} s: {process.plan.url}/docs")

    async def _stop(self) -> None:
        """Runners first: what they cannot end in time they give up uncounted, and it goes back into the queue."""
        self.is_stopping = True
        for announcement in self._announcements:
            announcement.cancel()
        await asyncio.gather(*self._announcements, return_exceptions=True)
        await asyncio.gather(*(runner.stop() for runner in self.runners))
        for service in self._services:
            await service.stop()
        await self._discovery.stop()
        self._files.close()

    def _state(self) -> EnvironmentState:
        return EnvironmentState(
            gateway=self.layout.gateway_url,
            discovery=self.layout.discovery_url,
            runners={runner.plan.name: runner.plan.url for runner in self.runners},
        )

    def _all(self) -> list[ManagedProcess]:
        return [*self._services, *self.runners, self._discovery]
