"""One runner of a running environment: kept at the version its folder holds, without a gap."""

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from worker.adapter_check import check_adapter
from worker.edition import Edition
from worker.edition_maker import EditionMaker, RunnerTools
from worker.errors import StartFailed, WorkerError
from worker.processes import ManagedProcess
from worker.readiness import explained
from worker.runner_code import REQUIRED
from worker.runners import RunnerFolder
from worker.state_file import RunnerState
from worker.succession import MOST_CHANGES, CountedChanges, Step, Versions, next_step

#: A folder that is gone for this long is not just being replaced.
GONE_SECONDS = 1.0
#: How often a process that was ready is looked at, to tell when it is ready again after a new start.
_WATCH_SECONDS = 0.5


class LiveRunner:
    """`count` processes of one runner. :meth:`want` tells what its folder holds; the rest follows by itself."""

    def __init__(self, name: str, count: int, tools: RunnerTools) -> None:
        self.name = name
        #: why it does not run
        self._trouble = ""
        #: why its newest change is not taken
        self._refusal = ""
        #: how far the version on its way is, and whether something was told of it
        self._doing = ""
        self._has_news = False
        #: made last
        self._python: Path | None = None
        #: why some of its changes do not count
        self._restless = ""
        self._tools = tools
        self._changes = CountedChanges()
        self._maker = EditionMaker(count, tools, self._changes.version_of)
        self._serving: Edition | None = None
        self._starting: Edition | None = None
        self._coming: str | None = None
        self._refused: str | None = None
        self._leaving = False
        self._step: asyncio.Task[None] | None = None
        self._drains: dict[asyncio.Task[None], Edition] = {}

    # what others see

    @property
    def problem(self) -> str:
        """Why it does not run, or why its newest change is not taken; empty when all is well, or may become well."""
        refusal, trouble = self._refusal, self._trouble
        if self._coming is not None and not self._has_news:
            # Of the version before the one that comes.
            refusal, trouble = "", trouble if self._serving is not None else ""
        return "\n".join(filter(None, (trouble, refusal, self._restless)))

    @property
    def processes(self) -> list[ManagedProcess]:
        """Those that serve, or will."""
        return self._serving.processes if self._serving is not None else []

    @property
    def every_process(self) -> list[ManagedProcess]:
        """Also those that come and go."""
        return [process for edition in self._editions for process in edition.processes]

    @property
    def is_coming(self) -> bool:
        """Nothing of it runs yet, and it may come by itself."""
        return self._serving is None and self._coming not in (None, self._refused)

    @property
    def is_gone(self) -> bool:
        """Nothing of it runs, and nothing is being done about it."""
        return not self._editions and self._step is None

    def state(self) -> RunnerState:
        processes = [state for edition in self._editions for state in edition.state()]
        return RunnerState(processes=processes, problem=self.problem, coming=self._doing, python=self._python)

    @property
    def _editions(self) -> list[Edition]:
        present = [one for one in (self._serving, self._starting) if one is not None]
        return [*present, *self._drains.values()]

    # what is asked of it

    async def prepare(self, folder: RunnerFolder, digests: Mapping[str, str]) -> Path | None:
        """Before the first start: its Python. None when its environment cannot be made, which is then its `problem`,
        and when it has to be made first, which is begun: it starts by itself, and keeps the others from nothing.
        """
        version = self._look(digests)
        try:
            if not await self._maker.has_environment(folder):
                self._begin(self._bring(folder, version, self._tools.layout.runner_port(folder)))
                self._coming = version
                return None
            return await self._maker.python(folder)
        except WorkerError as error:
            self._refused = version
            self._leave_out(error)
            return None

    async def start(self, folder: RunnerFolder, python: Path, port: int) -> None:
        """The first start, with everything else: at its own port, and without the check, whose time that saves."""
        self._python = python
        try:
            edition = await self._maker.edition(folder, python, port)
        except WorkerError as error:
            self._leave_out(error)
            return
        self._tools.interpreters.remove_older(self.name, [python])
        edition.start()
        self._serve(edition)

    def want(self, folder: RunnerFolder | None, digests: Mapping[str, str] | None) -> None:
        """What its folder holds now; None when it is gone. Returns at once."""
        version = None if digests is None else self._look(digests)
        serving = None if self._serving is None else self._serving.version
        if version is not None and version == serving:
            self._taken_back()
        match next_step(version, Versions(serving, self._coming, self._refused, self._leaving)):
            case Step.BRING:
                assert folder is not None and version is not None
                self._begin(self._bring(folder, version))
                self._coming = version
            case Step.LEAVE:
                self._begin(self._leave())
                self._leaving = True
            case Step.STAY:
                self._give_up_step()

    def _look(self, digests: Mapping[str, str]) -> str:
        """The version that the folder holds; tells which files change too often to count."""
        before = self._changes.restless
        version = self._changes.look(digests, asyncio.get_running_loop().time())
        restless = self._changes.restless
        self._restless = _restless_sentence(restless) if restless else ""
        if restless.keys() - before.keys():
            self._say(self._restless)
        if restless.keys() != before.keys():
            self._tools.changed()
        return version

    def _taken_back(self) -> None:
        """The folder holds what runs: a mistake that comes again is to be told again."""
        if self._refusal:
            self._say("is again what it was; it goes on")
            self._refusal, self._refused = "", None
            self._tools.changed()

    async def stop(self) -> None:
        """Ends everything, in order and within bounds. Idempotent."""
        step = self._step
        self._give_up_step()
        if step is not None:
            await asyncio.wait([step])
        await self._maker.stop()
        if self._serving is not None:
            self._drain(self._serving)
            self._serving = None
        if self._drains:
            await asyncio.wait(self._drains)

    # one step at a time

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._give_up_step()
        self._has_news = False
        self._step = asyncio.create_task(work)
        self._step.add_done_callback(self._step_ended)

    def _give_up_step(self) -> None:
        step, self._step = self._step, None
        self._coming, self._leaving, self._doing = None, False, ""
        if step is not None:
            step.cancel()

    def _step_ended(self, step: "asyncio.Task[None]") -> None:
        error = None if step.cancelled() else step.exception()
        if self._step is step:
            if error is not None:
                # Else the next look, in a few seconds, would begin it again.
                self._refused = self._coming
            self._step, self._coming, self._leaving, self._doing = None, None, False, ""
        if error is not None:
            self._say(f"failed unexpectedly, {type(error).__name__}: {error}; its next change is tried again")
        self._tools.changed()

    async def _bring(self, folder: RunnerFolder, version: str, first_port: int | None = None) -> None:
        edition = None
        if first_port is None:
            self._say("is new; it is checked" if self._serving is None else "has changed; the new version is checked")
        try:
            self._do("installing")
            python = self._python = await self._maker.python(folder)
            self._do("checking")
            edition = await self._maker.edition(folder, python, first_port)
            first_port = None
            if self._serving is not None and self._serving.version == edition.version:
                return
            await check_adapter(edition.processes[0].plan)
            self._do("starting")
            edition.start()
            if self._serving is not None:
                self._starting = edition
                await self._maker.until_in_place(edition, self._tell_not_loaded, await self._lacking())
            taken, edition = edition, None
            self._serve(taken)
        except WorkerError as error:
            self._refuse(version, str(error))
        finally:
            if first_port is not None:
                self._tools.ports.give_back(first_port)
            if edition is not None:
                self._drain(edition)

    def _do(self, what: str) -> None:
        self._doing = what
        self._tools.changed()

    async def _lacking(self) -> set[str]:
        """The parts that cannot work now, of a runner that is listed with others that do."""
        unready = [process for process in self.processes if not process.is_ready and process.reasons]
        listed = [p for p in unready if await self._tools.is_registered(p.plan.url, p.boot)]
        return {part for process in listed for part in process.reasons}

    async def _leave(self) -> None:
        await asyncio.sleep(GONE_SECONDS)
        self._say("its folder is gone; it ends what it runs and leaves")
        self._trouble, self._refusal, self._refused = "", "", None
        if self._serving is not None:
            drain = self._drain(self._serving)
            self._serving = None
            self._tools.changed()
            await asyncio.shield(drain)
        self._say("has left")
        # Whoever has its functions now, e.g. in a folder of another name, may have its algorithms.
        await self._tools.give_up(self.name)

    # what becomes of editions

    def _serve(self, edition: Edition) -> None:
        """From now on this edition is the runner; what was before drains."""
        before, self._serving = self._serving, edition
        self._starting = None
        self._trouble, self._refusal, self._refused = "", "", None
        edition.watches = [asyncio.create_task(self._watch(process)) for process in edition.processes]
        if before is not None:
            self._drain(before)
        self._tools.changed()

    def _drain(self, edition: Edition) -> "asyncio.Task[None]":
        if self._starting is edition:
            self._starting = None
        edition.draining = True
        drain = asyncio.create_task(edition.stop(self._tools.ports))
        self._drains[drain] = edition
        drain.add_done_callback(self._drained)
        return drain

    def _drained(self, drain: "asyncio.Task[None]") -> None:
        del self._drains[drain]
        # A version on its way may be about to start from an environment that no edition has yet.
        if self._serving is not None and self._coming is None and not self._maker.is_installing:
            self._tools.interpreters.remove_older(self.name, [edition.python for edition in self._editions])
        self._tools.changed()

    # what is told

    def _leave_out(self, error: WorkerError) -> None:
        self._trouble = str(error)
        self._tools.output.say(f"{self.name} is left out: {error}")

    def _refuse(self, version: str, why: str) -> None:
        self._refused = version
        self._has_news = True
        if self._serving is None:
            self._trouble = why
            again = "it is tried again" if self._tools.layout.settings.reload else "start the environment again"
            self._say(f"is not started; mend this, and {again}:\n{_indented(why)}")
        else:
            self._refusal = f"its newest change is not taken, what ran before goes on:\n{_indented(why)}"
            self._say(self._refusal)

    def _tell_not_loaded(self, reason: str) -> None:
        self._has_news = True
        self._refusal = f"its newest change cannot load yet, what ran before goes on:\n{_indented(reason)}"
        self._say(self._refusal)
        self._tools.changed()

    async def _watch(self, process: ManagedProcess) -> None:
        """Loading a model may take minutes: nobody waits for it, but everybody is told, also after each new start."""
        loop = asyncio.get_running_loop()
        name = process.plan.name
        if process.is_ready:
            self._tools.output.say(f"{name} is ready with its newest change: {process.plan.url}/docs")
        elif process.reasons:
            lacking = "; ".join(explained(process.reasons))
            self._tools.output.say(f"{name} runs with its newest change: {process.plan.url}/docs; {lacking}")
        while not process.has_given_up:
            if process.is_ready:
                await asyncio.sleep(_WATCH_SECONDS)
                continue
            self._tools.changed()
            started_at = loop.time()
            try:
                await process.wait_ready(self._tools.layout.settings.load_seconds, tell=self._tell_trouble)
            except StartFailed as error:
                last_lines = [] if process.reasons else process.last_lines
                self._set_trouble("\n".join([str(error), *last_lines]))
                self._tools.output.say(str(error))
            else:
                self._set_trouble("")
                self._tools.output.say(
                    f"{name} is ready after {loop.time() - started_at:.1f} s: {process.plan.url}/docs"
                )

    def _tell_trouble(self, trouble: str) -> None:
        self._set_trouble(trouble)
        self._say(trouble)

    def _set_trouble(self, trouble: str) -> None:
        self._trouble = trouble
        self._tools.changed()

    def _say(self, text: str) -> None:
        self._tools.output.say(f"{self.name}: {text}")


def _restless_sentence(rests: Mapping[str, float]) -> str:
    names = " and ".join(name.removeprefix(REQUIRED) for name in rests)
    return (
        f"{names} changed {MOST_CHANGES} times within a short time and counts as it was until it stays the same for "
        f"{max(rests.values()):g} s; the runner seems to write into its own folder, or what it requires changes by "
        "being installed: write to the folder for temporary files (TMPDIR) instead"
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
