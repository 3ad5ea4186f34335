"""Makes the next version of a runner: its virtual environment, a copy of its code, ports, processes."""

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from worker.build_progress import BuildProgress
from worker.edition import Edition
from worker.environments import Report
from worker.errors import AdapterRefused, StartFailed
from worker.output import Output
from worker.plan import Layout
from worker.port_pool import PortPool
from worker.processes import ManagedProcess
from worker.readiness import explained
from worker.runner_code import code_digests, copy_code, place_among_neighbours, version_of
from worker.runners import RunnerFolder, variables_of

#: A new version that dies more often than that before it is ready is given up.
_MOST_RESTARTS = 2
#: Files that vanish while they are copied: somebody is writing. So often and so long is waited for the end of it.
_COPIES = 10
_COPY_AGAIN_SECONDS = 0.3
_LOOK_SECONDS = 0.05


class Interpreters(Protocol):
    """Where runners get their Python from; an EnvironmentBuilder, but for tests that save its time."""

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        """Raises EnvironmentBroken."""

    def path(self, runner: RunnerFolder) -> Path:
        """Equal for equal requirements."""

    def is_complete(self, runner: RunnerFolder) -> bool:
        """Whether :meth:`ensure` has nothing to do."""

    def remove_older(self, name: str, pythons: list[Path]) -> None:
        """Keeps only what these Pythons belong to."""


async def _tell_nobody(_name: str) -> None:
    return None


@dataclass(frozen=True)
class RunnerTools:
    """What all runners of an environment share."""

    layout: Layout
    interpreters: Interpreters
    ports: PortPool
    output: Output
    progress: BuildProgress
    #: (address, boot id) → is it on discovery's list?
    is_registered: Callable[[str, str], Awaitable[bool]]
    #: called when the state of a runner has changed
    changed: Callable[[], None]
    serials: "itertools.count[int]" = field(default_factory=itertools.count)
    #: called with the name of a runner that is no more, once it has left
    give_up: Callable[[str], Awaitable[None]] = _tell_nobody


class EditionMaker:
    """Makes editions with `count` processes each; `version_of` names the version of a runner's files."""

    def __init__(
        self, count: int, tools: RunnerTools, version_of: Callable[[Mapping[str, str]], str] = version_of
    ) -> None:
        self._count = count
        self._tools = tools
        self._version_of = version_of
        self._making: tuple[Path, asyncio.Task[Path]] | None = None

    @property
    def is_installing(self) -> bool:
        return self._making is not None and not self._making[1].done()

    async def has_environment(self, folder: RunnerFolder) -> bool:
        return await asyncio.to_thread(self._tools.interpreters.is_complete, folder)

    async def stop(self) -> None:
        if self._making is not None:
            self._making[1].cancel()
            await asyncio.wait([self._making[1]])

    async def python(self, folder: RunnerFolder) -> Path:
        """Of its virtual environment, made now when it isn't there. Raises EnvironmentBroken.

        Goes on when the caller is cancelled: a further edit that leaves the requirements alone finds it begun.
        """
        path = self._tools.interpreters.path(folder)
        if self._making is not None and self._making[0] != path:
            self._making[1].cancel()
        if self._making is None or self._making[0] != path or self._making[1].done():
            self._making = path, asyncio.ensure_future(self._make_environment(folder))
            self._making[1].add_done_callback(_look_at)
        return await asyncio.shield(self._making[1])

    async def _make_environment(self, folder: RunnerFolder) -> Path:
        with self._tools.progress as progress:
            try:
                python = await self._tools.interpreters.ensure(folder, partial(progress.step, notice=folder.notice))
            except BaseException:
                progress.failed(folder.name)
                raise
            progress.done(folder.name)
        return python

    async def edition(self, folder: RunnerFolder, python: Path, first_port: int | None = None) -> Edition:
        """Not started yet. Raises PortTaken, BadVariables; AdapterRefused when its files cannot be read."""
        tools = self._tools
        variables = await asyncio.to_thread(variables_of, folder)
        copy, place, version = await self._copied(folder)
        ports = [
            first_port if first_port is not None and number == 0 else tools.ports.take()
            for number in range(self._count)
        ]
        plans = [
            tools.layout.runner(folder, python, port, place, self._label(folder.name, number), variables)
            for number, port in enumerate(ports)
        ]
        return Edition(version, python, copy, [ManagedProcess(plan, tools.output) for plan in plans], ports)

    async def _copied(self, folder: RunnerFolder) -> tuple[Path | None, Path | None, str]:
        """The folder of the copy, the place in it where the adapter is, the version.

        A new copy each time: two editions of the same version may be there for a while.
        """
        if not self._tools.layout.settings.reload:
            return None, None, self._version_of(await asyncio.to_thread(code_digests, folder.path))
        why = ""
        for _ in range(_COPIES):
            target = self._tools.layout.code_folder / f"{folder.name}-{next(self._tools.serials)}"
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

    def _label(self, name: str, number: int) -> str:
        return name if self._count == 1 else f"{name}-{number + 1}"

    async def until_in_place(self, edition: Edition, tell: Callable[[str], None], spared: Collection[str] = ()) -> None:
        """Ready, and known to discovery: from then on the edition before is not needed. Raises StartFailed.

        `tell` is called with each reason why it cannot load; it goes on trying. The parts that are `spared` cannot
        work in the edition before either: they need not now.
        """
        seconds = self._tools.layout.settings.load_seconds
        await self._until_ready(edition, seconds, tell, spared)
        try:
            async with asyncio.timeout(seconds):
                for process in edition.processes:
                    while not await self._tools.is_registered(process.plan.url, process.boot):  # noqa: ASYNC110 - asked
                        await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise StartFailed("it is ready, but discovery does not list it") from None
        # It is listed when all of it has loaded or failed to, so that now is known what of it works.
        await self._until_ready(edition, seconds, tell, spared)

    async def _until_ready(
        self, edition: Edition, seconds: float, tell: Callable[[str], None], spared: Collection[str]
    ) -> None:
        for process in edition.processes:
            ready = asyncio.ensure_future(
                process.wait_ready(seconds, most_restarts=_MOST_RESTARTS, tell=tell, spared=spared)
            )
            listed = asyncio.ensure_future(self._until_listed_without(process, spared))
            try:
                await asyncio.wait([ready, listed], return_when=asyncio.FIRST_COMPLETED)
                if not ready.done():
                    raise StartFailed(listed.result())
                await ready
            except StartFailed as error:
                last_lines = [] if process.reasons else process.last_lines
                raise StartFailed("\n".join([str(error), *last_lines])) from None
            finally:
                ready.cancel()
                listed.cancel()
                await asyncio.wait([ready, listed])

    async def _until_listed_without(self, process: ManagedProcess, spared: Collection[str]) -> str:
        """Says what cannot work, once discovery lists the rest of it.

        From then on it would take tasks from the edition before, or all of them where its schemas differ.
        """
        while True:
            lacking = {part: why for part, why in process.reasons.items() if part not in spared}
            if lacking and await self._tools.is_registered(process.plan.url, process.boot):
                return "; ".join(explained(lacking))
            await asyncio.sleep(_LOOK_SECONDS)


def _look_at(making: "asyncio.Task[Path]") -> None:
    """Nobody may wait for it any more; asyncio complains about errors that nobody has seen."""
    if not making.cancelled():
        making.exception()
