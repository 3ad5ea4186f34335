"""One version of a runner: builds it, checks it, waits until it can take over, ends it."""

import asyncio
import itertools
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from worker.errors import AdapterRefused, StartFailed
from worker.output import InstallProgress, Output, Report
from worker.plan import UNREGISTRABLE, Layout, ProcessPlan
from worker.ports import PortPool
from worker.processes import ManagedProcess, explained, run_to_end
from worker.runner_code import code_digests, copy_code, place_among_neighbours
from worker.runners import RunnerFolder, variables_of
from worker.state_file import ProcessState

#: A new version that dies more often than that before it is ready is given up.
_MOST_RESTARTS = 2
#: Files that vanish while they are copied are being written: so often, with this pause, the copy is tried again.
_COPIES, _COPY_AGAIN_SECONDS = 10, 0.3
_POLL_SECONDS = 0.05
#: Importing a large library on a busy machine takes this long; an import that hangs, longer.
CHECK_SECONDS = 120.0
_CHECK_LINES = 12


class Interpreters(Protocol):
    """Where runners get their Python from: an EnvironmentBuilder, or in tests something faster."""

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path: ...
    def path(self, runner: RunnerFolder) -> Path: ...
    def is_complete(self, runner: RunnerFolder) -> bool: ...
    def remove_older(self, name: str, pythons: list[Path]) -> None: ...


@dataclass(frozen=True)
class RunnerContext:
    """What all runners of an environment share."""

    layout: Layout
    interpreters: Interpreters
    ports: PortPool
    output: Output
    progress: InstallProgress
    #: (address, boot id) → whether discovery lists it
    is_registered: Callable[[str, str], Awaitable[bool]]
    #: called when the state of a runner has changed
    changed: Callable[[], None]
    #: called with the name of a runner that has left for good
    release_algorithms: Callable[[str], Awaitable[None]] | None = None
    serials: "itertools.count[int]" = field(default_factory=itertools.count)


@dataclass(eq=False)
class RunnerVersion:
    """A copy of a runner's code and the processes that run it. `code` is None if they run the runner's own folder."""

    version: str
    python: Path
    code: Path | None
    processes: list[ManagedProcess]
    ports: Sequence[int]
    #: tasks that tell when a process is ready again
    watches: list["asyncio.Task[None]"] = field(default_factory=list)
    draining: bool = False

    def start(self) -> None:
        for process in self.processes:
            process.start()

    async def stop(self, ports: PortPool) -> None:
        """Lets the processes finish what they run, then gives back ports and copy. Idempotent."""
        self.draining = True
        for watch in self.watches:
            watch.cancel()
        await asyncio.gather(*(process.stop() for process in self.processes))
        for port in self.ports:
            ports.give_back(port)
        self.ports = ()
        if self.code is not None:
            await asyncio.to_thread(shutil.rmtree, self.code, ignore_errors=True)

    def state(self) -> list[ProcessState]:
        return [
            ProcessState(
                url=process.plan.url,
                pid=process.pid,
                since=process.ready_at if process.is_ready else None,
                draining=self.draining,
            )
            for process in self.processes
            if process.pid is not None or not self.draining
        ]


class VersionBuilder:
    """Builds versions with `count` processes each; `version_of` computes the version from the digests of files."""

    def __init__(self, count: int, context: RunnerContext, version_of: Callable[[Mapping[str, str]], str]) -> None:
        self._count = count
        self._context = context
        self._version_of = version_of
        self._installing: tuple[Path, asyncio.Task[Path]] | None = None

    @property
    def is_installing(self) -> bool:
        return self._installing is not None and not self._installing[1].done()

    async def stop(self) -> None:
        if self._installing is not None:
            self._installing[1].cancel()
            await asyncio.wait([self._installing[1]])

    async def python(self, folder: RunnerFolder) -> Path:
        """The Python of the runner's virtual environment, made now if it isn't there. Raises EnvironmentBroken.

        Installing goes on if the caller is cancelled: a further edit that leaves the requirements alone finds it begun.
        """
        path = self._context.interpreters.path(folder)
        if self._installing is not None and self._installing[0] != path:
            self._installing[1].cancel()
        if self._installing is None or self._installing[0] != path or self._installing[1].done():
            task = asyncio.ensure_future(self._install(folder))
            task.add_done_callback(_retrieve_error)
            self._installing = path, task
        return await asyncio.shield(self._installing[1])

    async def _install(self, folder: RunnerFolder) -> Path:
        with self._context.progress.installing(folder.name, folder.notice) as report:
            return await self._context.interpreters.ensure(folder, report)

    async def build(self, folder: RunnerFolder, python: Path, first_port: int | None = None) -> RunnerVersion:
        """A version that is not started yet. Raises PortTaken, BadVariables; AdapterRefused if files cannot be read."""
        context = self._context
        variables = await asyncio.to_thread(variables_of, folder)
        copy, place, version = await self._copied(folder)
        processes, ports = [], []
        for number in range(1, self._count + 1):
            port = first_port if number == 1 and first_port is not None else context.ports.take()
            label = folder.name if self._count == 1 else f"{folder.name}-{number}"
            plan = context.layout.runner(folder, python, port, place, label, variables)
            processes.append(ManagedProcess(plan, context.output))
            ports.append(port)
        return RunnerVersion(version, python, copy, processes, ports)

    async def _copied(self, folder: RunnerFolder) -> tuple[Path | None, Path | None, str]:
        """The folder of the copy, the place of the adapter in it, the version.

        A new copy each time: two processes of the same version may exist for a while.
        """
        layout = self._context.layout
        if not layout.settings.reload:
            return None, None, self._version_of(await asyncio.to_thread(code_digests, folder.path))
        why = ""
        for _ in range(_COPIES):
            target = layout.code_folder / f"{folder.name}-{next(self._context.serials)}"
            try:
                place = await asyncio.to_thread(place_among_neighbours, folder.path, target)
                digests = await asyncio.to_thread(copy_code, folder.path, place)
            except OSError as error:
                why = str(error)
                await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
                await asyncio.sleep(_COPY_AGAIN_SECONDS)
            else:
                return target, place, self._version_of(digests)
        raise AdapterRefused(f"its files cannot be read: {why}")


def _retrieve_error(task: "asyncio.Task[Path]") -> None:
    """The caller may be gone; asyncio complains about errors that are never retrieved."""
    if not task.cancelled():
        task.exception()


async def check_adapter(plan: ProcessPlan, *, seconds: float = CHECK_SECONDS) -> None:
    """Runs ``python -m runnerlib check`` where the adapter would be served. Raises AdapterRefused with what it says.

    Algorithms that cannot be registered are no reason: the runner serves the rest, and its readiness says what is
    missing.
    """
    command = (*plan.command, "check", plan.environment["RUNNER_ADAPTER"])
    tail: deque[str] = deque(maxlen=_CHECK_LINES)

    def on_line(line: str) -> None:
        if line.strip():
            tail.append(line.rstrip())

    try:
        async with asyncio.timeout(seconds):
            code = await run_to_end(command, on_line, folder=plan.folder, environment=plan.environment)
    except TimeoutError:
        advice = f"importing it took longer than {seconds:g} s; move what takes long into a load_ function"
        raise AdapterRefused("\n".join([*tail, advice])) from None
    except OSError as error:
        raise AdapterRefused(f"it could not be checked: {error}") from None
    if code not in (0, UNREGISTRABLE):
        raise AdapterRefused("\n".join(tail) or f"its check ended with {code} and said nothing")


async def wait_in_place(
    version: RunnerVersion,
    context: RunnerContext,
    tell: Callable[[str], None],
    ignored_parts: Collection[str] = (),
) -> None:
    """Waits until it is ready and discovery lists it: from then on the version before is not needed.

    `tell` is called with each reason why it cannot load; it goes on trying. `ignored_parts` cannot work in the version
    before either, so need not now. Raises StartFailed.
    """
    seconds = context.layout.settings.load_seconds

    async def all_ready() -> None:
        for process in version.processes:
            is_enough = partial(_works_as_before, process, context, ignored_parts)
            try:
                await process.wait_ready(seconds, most_restarts=_MOST_RESTARTS, tell=tell, is_enough=is_enough)
            except StartFailed as error:
                last_lines = [] if process.reasons else process.last_lines
                raise StartFailed("\n".join([str(error), *last_lines])) from None

    await all_ready()
    try:
        async with asyncio.timeout(seconds):
            for process in version.processes:
                while not await context.is_registered(process.plan.url, process.boot):  # noqa: ASYNC110 - asked
                    await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise StartFailed("it is ready, but discovery does not list it") from None
    # It is listed once all of it has loaded or failed to: only now is it known what works.
    await all_ready()


async def _works_as_before(process: ManagedProcess, context: RunnerContext, ignored_parts: Collection[str]) -> bool:
    """Whether only `ignored_parts` have failed. Raises StartFailed if discovery lists it although more has: it would
    take tasks from the version before, or all of them where its schemas differ.
    """
    lacking = {part: why for part, why in process.reasons.items() if part not in ignored_parts}
    if lacking and await context.is_registered(process.plan.url, process.boot):
        raise StartFailed("; ".join(explained(lacking)))
    return not lacking
