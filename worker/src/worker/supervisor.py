"""Keeps each runner of a running environment at the version that its folder holds, without a gap."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from worker.errors import WorkerError
from worker.processes import ManagedProcess, explained
from worker.rollout import ChangeFilter, RolloutState, Step, flapping_sentence, next_step
from worker.runner_code import code_digests
from worker.runners import RunnerFolder, Selection
from worker.state_file import RunnerState
from worker.versions import RunnerContext, RunnerVersion, VersionBuilder, check_adapter, wait_in_place

#: A folder that is gone for less than this is just being replaced.
GONE_SECONDS = 1.0


class RunnerSet:
    """All runners. :meth:`prepare` and :meth:`start` once; then :meth:`follow` whenever something may have changed."""

    def __init__(self, selection: Selection, context: RunnerContext) -> None:
        self._selection = selection
        self._context = context
        self._runners: dict[str, RunnerSupervisor] = {}

    @property
    def processes(self) -> list[ManagedProcess]:
        """Those that serve, or will when they are ready."""
        return [process for runner in self._runners.values() for process in runner.processes]

    @property
    def every_process(self) -> list[ManagedProcess]:
        """Also those that are about to start or to end."""
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
        """Runners of which nothing runs yet, since they are still being installed or checked."""
        return [name for name, runner in self._runners.items() if runner.is_coming]

    def state(self) -> dict[str, RunnerState]:
        return {name: runner.state() for name, runner in sorted(self._runners.items())}

    async def prepare(self, folders: list[RunnerFolder]) -> dict[str, Path]:
        """Runner → its Python, without those that failed and those whose environments are still being made."""

        async def python_of(folder: RunnerFolder) -> Path | None:
            runner = self._supervisor(folder.name)
            return await runner.prepare(folder, await asyncio.to_thread(code_digests, folder.path))

        for folder in folders:
            self._context.ports.reserve(self._context.layout.runner_port(folder))
        pythons = await asyncio.gather(*(python_of(folder) for folder in folders))
        return {folder.name: python for folder, python in zip(folders, pythons, strict=True) if python is not None}

    async def start(self, folders: list[RunnerFolder], pythons: Mapping[str, Path]) -> None:
        """Starts those that have a Python, each first process at the port of its place."""
        for folder in folders:
            if folder.name in pythons:
                port = self._context.layout.runner_port(folder)
                await self._runners[folder.name].start(folder, pythons[folder.name], port)

    async def follow(self) -> None:
        """Looks at the folders and starts what is due. Does nothing while the folder of runners itself is away."""
        found = await asyncio.to_thread(self._look)
        if found is None:
            return
        for name, (folder, digests) in found.items():
            self._supervisor(name).update(folder, digests)
        for name in self._runners.keys() - found.keys():
            self._runners[name].update(None, None)
            if self._runners[name].is_gone:
                del self._runners[name]
                self._context.changed()

    async def stop(self) -> None:
        await asyncio.gather(*(runner.stop() for runner in self._runners.values()))

    def _look(self) -> dict[str, tuple[RunnerFolder, dict[str, str]]] | None:
        if not self._selection.folder.is_dir():
            return None
        return {runner.name: (runner, code_digests(runner.path)) for runner in self._selection.runners()}

    def _supervisor(self, name: str) -> "RunnerSupervisor":
        if name not in self._runners:
            self._runners[name] = RunnerSupervisor(name, self._selection.count(name), self._context)
        return self._runners[name]


@dataclass(eq=False)
class _Work:
    """What is being done about a runner: `version` is rolled out; or it leaves, without one."""

    version: str | None
    #: how far it is
    stage: str = ""
    #: whether a problem of this version was told
    told: bool = False
    task: "asyncio.Task[None]" = field(init=False)


class RunnerSupervisor:
    """Runs `count` processes of one runner. :meth:`update` tells what its folder holds; the rest follows by itself.

    One thing is done at a time: rolling out a version, or leaving. The newest update wins.
    """

    def __init__(self, name: str, count: int, context: RunnerContext) -> None:
        self.name = name
        self._context = context
        self._changes = ChangeFilter()
        self._builder = VersionBuilder(count, context, self._changes.version_of)
        self._serving: RunnerVersion | None = None
        self._starting: RunnerVersion | None = None
        self._draining: dict[asyncio.Task[None], RunnerVersion] = {}
        #: the Python that was made last
        self._python: Path | None = None
        self._work: _Work | None = None
        #: the newest version that could not take over
        self._refused: str | None = None
        #: why it does not run; why its newest change is not taken; why changes of some files do not count
        self._failure = ""
        self._refusal = ""
        self._flapping = ""

    @property
    def problem(self) -> str:
        """Why it does not run, or why its newest change is not taken; empty if all is well, or may become well."""
        failure, refusal = self._failure, self._refusal
        if self._coming is not None and self._work is not None and not self._work.told:
            # These are about the version before the one on its way.
            failure, refusal = failure if self._serving is not None else "", ""
        return "\n".join(filter(None, (failure, refusal, self._flapping)))

    @property
    def processes(self) -> list[ManagedProcess]:
        """Those that serve, or will when they are ready."""
        return self._serving.processes if self._serving is not None else []

    @property
    def every_process(self) -> list[ManagedProcess]:
        """Also those that are about to start or to end."""
        return [process for version in self._versions for process in version.processes]

    @property
    def is_coming(self) -> bool:
        """Nothing of it runs yet, and a version is on its way."""
        return self._serving is None and self._coming not in (None, self._refused)

    @property
    def is_gone(self) -> bool:
        """Nothing of it runs, and nothing is being done about it."""
        return not self._versions and self._work is None

    def state(self) -> RunnerState:
        processes = [state for version in self._versions for state in version.state()]
        stage = "" if self._work is None else self._work.stage
        return RunnerState(processes=processes, problem=self.problem, coming=stage, python=self._python)

    @property
    def _coming(self) -> str | None:
        """The version on its way."""
        return None if self._work is None else self._work.version

    @property
    def _versions(self) -> list[RunnerVersion]:
        present = [one for one in (self._serving, self._starting) if one is not None]
        return [*present, *self._draining.values()]

    async def prepare(self, folder: RunnerFolder, digests: Mapping[str, str]) -> Path | None:
        """Returns the runner's Python for the first start.

        None if its environment cannot be made, which is then its `problem`; also None if it has to be made first: the
        runner starts by itself then, and no other waits for it.
        """
        version = self._look(digests)
        try:
            if not await asyncio.to_thread(self._context.interpreters.is_complete, folder):
                self._begin(version, partial(self._roll_out, folder, self._context.layout.runner_port(folder)))
                return None
            return await self._builder.python(folder)
        except WorkerError as error:
            self._refused = version
            self._leave_out(error)
            return None

    async def start(self, folder: RunnerFolder, python: Path, port: int) -> None:
        """The first start, with everything else: at its own port, and without the check, whose time that saves."""
        self._python = python
        try:
            version = await self._builder.build(folder, python, port)
        except WorkerError as error:
            self._leave_out(error)
            return
        self._context.interpreters.remove_older(self.name, [python])
        version.start()
        self._serve(version)

    def _leave_out(self, error: WorkerError) -> None:
        self._failure = str(error)
        self._context.output.say(f"{self.name} is left out: {error}")

    def update(self, folder: RunnerFolder | None, digests: Mapping[str, str] | None) -> None:
        """What its folder holds now; None if it is gone. Returns at once."""
        version = None if digests is None else self._look(digests)
        serving = None if self._serving is None else self._serving.version
        if version is not None and version == serving and self._refusal:
            # A mistake that was taken back and comes again is told again.
            self._say("is again what it was; it goes on")
            self._refusal, self._refused = "", None
            self._context.changed()
        is_leaving = self._work is not None and self._work.version is None
        match next_step(version, RolloutState(serving, self._coming, self._refused, is_leaving)):
            case Step.ROLL_OUT:
                assert folder is not None
                self._begin(version, partial(self._roll_out, folder, None))
            case Step.LEAVE:
                self._begin(None, self._leave)
            case Step.ABORT:
                self._abort()

    def _look(self, digests: Mapping[str, str]) -> str:
        """The version that the folder holds; tells which files change too often to count."""
        before = self._changes.flapping().keys()
        version = self._changes.look(digests, asyncio.get_running_loop().time())
        flapping = self._changes.flapping()
        self._flapping = flapping_sentence(flapping)
        if flapping.keys() - before:
            self._say(self._flapping)
        if flapping.keys() != before:
            self._context.changed()
        return version

    async def stop(self) -> None:
        """Ends everything, in order and within bounds. Idempotent."""
        work = self._work
        self._abort()
        if work is not None:
            await asyncio.wait([work.task])
        await self._builder.stop()
        if self._serving is not None:
            self._drain(self._serving)
            self._serving = None
        if self._draining:
            await asyncio.wait(self._draining)

    # the work in progress

    def _begin(self, version: str | None, work: Callable[[_Work], Coroutine[Any, Any, None]]) -> None:
        self._abort()
        self._work = _Work(version)
        self._work.task = asyncio.create_task(work(self._work))
        self._work.task.add_done_callback(self._ended)

    def _abort(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.task.cancel()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if self._work is not None and self._work.task is task:
            if error is not None:
                # Otherwise the next look, in a few seconds, would begin it again.
                self._refused = self._coming
            self._work = None
        if error is not None:
            self._say(f"failed unexpectedly, {type(error).__name__}: {error}; its next change is tried again")
        self._context.changed()

    async def _roll_out(self, folder: RunnerFolder, first_port: int | None, work: _Work) -> None:
        """Installs, checks and starts a version; it takes over when it is ready."""
        version = None
        if first_port is None:
            self._say("is new; it is checked" if self._serving is None else "has changed; the new version is checked")
        try:
            self._reach(work, "installing")
            python = self._python = await self._builder.python(folder)
            self._reach(work, "checking")
            version = await self._builder.build(folder, python, first_port)
            first_port = None
            if self._serving is not None and self._serving.version == version.version:
                return
            await check_adapter(version.processes[0].plan)
            self._reach(work, "starting")
            version.start()
            if self._serving is not None:
                self._starting = version
                tell = partial(self._tell_not_loaded, work)
                await wait_in_place(version, self._context, tell, await self._failed_parts())
            taken, version = version, None
            self._serve(taken)
        except WorkerError as error:
            self._refuse(work, str(error))
        finally:
            if first_port is not None:
                self._context.ports.give_back(first_port)
            if version is not None:
                self._drain(version)

    def _reach(self, work: _Work, stage: str) -> None:
        work.stage = stage
        self._context.changed()

    async def _failed_parts(self) -> set[str]:
        """The parts that cannot work now, of processes that discovery lists with the others."""
        unready = [process for process in self.processes if not process.is_ready and process.reasons]
        listed = [p for p in unready if await self._context.is_registered(p.plan.url, p.boot)]
        return {part for process in listed for part in process.reasons}

    def _refuse(self, work: _Work, why: str) -> None:
        self._refused = work.version
        work.told = True
        if self._serving is None:
            self._failure = why
            again = "it is tried again" if self._context.layout.settings.reload else "start the environment again"
            self._say(f"is not started; mend this, and {again}:\n{_indented(why)}")
        else:
            self._refusal = f"its newest change is not taken, what ran before goes on:\n{_indented(why)}"
            self._say(self._refusal)

    def _tell_not_loaded(self, work: _Work, reason: str) -> None:
        work.told = True
        self._refusal = f"its newest change cannot load yet, what ran before goes on:\n{_indented(reason)}"
        self._say(self._refusal)
        self._context.changed()

    async def _leave(self, _: _Work) -> None:
        await asyncio.sleep(GONE_SECONDS)
        self._say("its folder is gone; it ends what it runs and leaves")
        self._failure, self._refusal, self._refused = "", "", None
        if self._serving is not None:
            drain = self._drain(self._serving)
            self._serving = None
            self._context.changed()
            await asyncio.shield(drain)
        self._say("has left")
        # Another runner with the same functions, e.g. in a renamed folder, may have its algorithms.
        if self._context.release_algorithms is not None:
            await self._context.release_algorithms(self.name)

    # what becomes of versions

    def _serve(self, version: RunnerVersion) -> None:
        """Makes this version the runner; the one before drains."""
        before, self._serving = self._serving, version
        self._starting = None
        self._failure, self._refusal, self._refused = "", "", None
        version.watches = [asyncio.create_task(self._watch(process)) for process in version.processes]
        if before is not None:
            self._drain(before)
        self._context.changed()

    def _drain(self, version: RunnerVersion) -> "asyncio.Task[None]":
        if self._starting is version:
            self._starting = None
        version.draining = True
        drain = asyncio.create_task(version.stop(self._context.ports))
        self._draining[drain] = version
        drain.add_done_callback(self._drained)
        return drain

    def _drained(self, drain: "asyncio.Task[None]") -> None:
        del self._draining[drain]
        # A version on its way may be about to start from an environment that no other version uses.
        if self._serving is not None and self._coming is None and not self._builder.is_installing:
            self._context.interpreters.remove_older(self.name, [version.python for version in self._versions])
        self._context.changed()

    async def _watch(self, process: ManagedProcess) -> None:
        """Tells when it is ready, also after each restart: loading a model may take minutes, and nothing waits."""
        name, docs = process.plan.name, f"{process.plan.url}/docs"
        say, load_seconds = self._context.output.say, self._context.layout.settings.load_seconds

        def on_ready(seconds: float) -> None:
            self._set_failure("")
            say(f"{name} is ready after {seconds:.1f} s: {docs}")

        def on_failure(why: str) -> None:
            self._set_failure("\n".join([why, *([] if process.reasons else process.last_lines)]))
            say(why)

        def tell(reason: str) -> None:
            self._set_failure(reason)
            self._say(reason)

        if process.is_ready:
            say(f"{name} is ready with its newest change: {docs}")
        elif process.reasons:
            say(f"{name} runs with its newest change: {docs}; {'; '.join(explained(process.reasons))}")
        await process.watch(load_seconds, on_ready, on_failure, on_unready=self._context.changed, tell=tell)

    def _set_failure(self, reason: str) -> None:
        self._failure = reason
        self._context.changed()

    def _say(self, text: str) -> None:
        self._context.output.say(f"{self.name}: {text}")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
