"""All runners of a running environment, each as its folder wants it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from worker.edition_maker import RunnerTools
from worker.live_runner import LiveRunner
from worker.processes import ManagedProcess
from worker.runner_code import code_digests
from worker.runners import RunnerFolder
from worker.selection import Selection
from worker.state_file import RunnerState


class RunnerSet:
    """:meth:`prepare` and :meth:`start` once; then :meth:`follow` as often as something may have changed."""

    def __init__(self, selection: Selection, tools: RunnerTools) -> None:
        self._selection = selection
        self._tools = tools
        self._runners: dict[str, LiveRunner] = {}

    @property
    def processes(self) -> list[ManagedProcess]:
        """Those that serve, or will."""
        return [process for runner in self._runners.values() for process in runner.processes]

    @property
    def every_process(self) -> list[ManagedProcess]:
        return [process for runner in self._runners.values() for process in runner.every_process]

    @property
    def broken(self) -> dict[str, str]:
        """Runners of which nothing runs → why."""
        return {
            name: runner.problem
            for name, runner in self._runners.items()
            if not runner.processes and runner.problem and not runner.is_coming
        }

    @property
    def coming(self) -> list[str]:
        """Runners of which nothing runs yet: their environments are being made, or they are being checked."""
        return [name for name, runner in self._runners.items() if runner.is_coming]

    def state(self) -> dict[str, RunnerState]:
        return {name: runner.state() for name, runner in sorted(self._runners.items())}

    async def prepare(self, folders: list[RunnerFolder]) -> dict[str, Path]:
        """Runner → its Python, without those left out, and without those whose environments are made meanwhile."""
        for folder in folders:
            self._tools.ports.reserve(self._tools.layout.runner_port(folder))
        pythons = await asyncio.gather(*(self._prepare(folder) for folder in folders))
        return {folder.name: python for folder, python in zip(folders, pythons, strict=True) if python is not None}

    async def _prepare(self, folder: RunnerFolder) -> Path | None:
        runner = self._add(folder.name)
        return await runner.prepare(folder, await asyncio.to_thread(code_digests, folder.path))

    async def start(self, folders: list[RunnerFolder], pythons: Mapping[str, Path]) -> None:
        """Starts those that have a Python, each first process at the port of its place."""
        ready = [folder for folder in folders if folder.name in pythons]
        for folder in ready:
            port = self._tools.layout.runner_port(folder)
            await self._runners[folder.name].start(folder, pythons[folder.name], port)

    async def follow(self) -> None:
        """Looks at the folder, and begins what is due. A folder of runners that is away itself changes nothing."""
        found = await asyncio.to_thread(self._look)
        if found is None:
            return
        for name, (folder, digests) in found.items():
            self._add(name).want(folder, digests)
        for name in self._runners.keys() - found.keys():
            self._runners[name].want(None, None)
            if self._runners[name].is_gone:
                del self._runners[name]
                self._tools.changed()

    async def stop(self) -> None:
        await asyncio.gather(*(runner.stop() for runner in self._runners.values()))

    def _look(self) -> dict[str, tuple[RunnerFolder, dict[str, str]]] | None:
        if not self._selection.folder.is_dir():
            return None
        return {runner.name: (runner, code_digests(runner.path)) for runner in self._selection.runners()}

    def _add(self, name: str) -> LiveRunner:
        if name not in self._runners:
            self._runners[name] = LiveRunner(name, self._selection.count(name), self._tools)
        return self._runners[name]
