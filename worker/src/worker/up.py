"""A running environment: discovery, services, runners; started in that order, stopped in one that loses nothing."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TypeVar

from worker.environment_client import Discovery, is_registered, release_algorithms
from worker.errors import PortTaken
from worker.folder_watcher import watch_folder
from worker.output import InstallProgress, Output
from worker.plan import MARK, Layout
from worker.ports import PortPool, environment_of, is_free, listener_pid, taken_sentence
from worker.processes import ManagedProcess
from worker.runners import RunnerFolder, Selection
from worker.state_file import EnvironmentState, StateFile, data_folder_owned
from worker.supervisor import RunnerSet
from worker.versions import Interpreters, RunnerContext

#: Processes of a worker that was killed a moment ago end by themselves within their grace and this time.
_LEFTOVERS_SECONDS = 8.0
#: Ctrl-C, a supervisor, a terminal that closes: once is a clean stop, twice is a kill.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The exit code that a shell expects of a program that was killed by Ctrl-C.
_KILLED = 130
T = TypeVar("T")


class Environment:
    """``async with Environment(...)``: everything is started on entering and stopped on leaving.

    A runner whose virtual environment cannot be made is left out (`broken`); no other waits for it. With the setting
    `reload`, the runners follow their folders until the end.
    """

    def __init__(
        self,
        layout: Layout,
        selection: Selection,
        interpreters: Interpreters,
        output: Output,
        registered: Callable[[Discovery, str, str], Awaitable[bool]] = is_registered,
    ) -> None:
        self.layout = layout
        self.is_stopping = False
        self._selection = selection
        self._output = output
        self._discovery = ManagedProcess(layout.discovery(), output)
        self._services = [ManagedProcess(plan, output) for plan in layout.services()]
        not_for_runners = [use.port for use in layout.service_ports()]
        discovery = Discovery(layout.discovery_url, layout.secrets.service_token)
        context = RunnerContext(
            layout,
            interpreters,
            PortPool(layout.settings.runner_ports_start, partial(is_free, layout.settings.host), not_for_runners),
            output,
            InstallProgress(output),
            partial(registered, discovery),
            self._write_state,
            partial(release_algorithms, discovery),
        )
        self.runners = RunnerSet(selection, context)
        self._tasks: list[asyncio.Task[None]] = []
        self._files = ExitStack()
        self._state_file: StateFile | None = None

    async def __aenter__(self) -> "Environment":
        try:
            self._files.enter_context(data_folder_owned(self.layout.data))
            folders = self._selection.runners()
            await self._check_ports(folders)
            # A worker that was killed may have left it.
            shutil.rmtree(self.layout.code_folder, ignore_errors=True)
            pythons = await self.runners.prepare(folders)
            await self._start(self._discovery)
            for service in self._services:
                await self._start(service)
            await self.runners.start(folders, pythons)
            self._state_file = StateFile(self.layout.data)
            self._files.callback(self._state_file.remove)
            self._write_state()
            self._follow()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    def kill(self) -> None:
        """Kills everything at once."""
        for process in [*self._services, *self.runners.every_process, self._discovery]:
            process.kill()

    async def _check_ports(self, folders: list[RunnerFolder]) -> None:
        host = self.layout.settings.host
        deadline = time.monotonic() + self.layout.settings.grace_seconds + _LEFTOVERS_SECONDS
        for use in self.layout.ports(folders):
            while not is_free(host, use.port):
                if time.monotonic() > deadline or not self._is_leftover(use.port):
                    raise PortTaken(taken_sentence(host, use))
                await asyncio.sleep(0.1)

    def _is_leftover(self, port: int) -> bool:
        """We own the data folder, so a process that carries its mark has lost its worker and is about to end."""
        pid = listener_pid(port)
        if pid is None:
            return is_free(self.layout.settings.host, port)
        return environment_of(pid).get(MARK) == str(self.layout.data)

    async def _start(self, process: ManagedProcess) -> None:
        """Starts what everything else needs, and waits until it is ready. Raises StartFailed."""
        process.start()
        started_at = time.monotonic()
        await process.wait_ready(self.layout.settings.start_seconds, most_restarts=1)
        self._say_ready(process, time.monotonic() - started_at)
        on_ready = partial(self._say_ready, process)
        watching = process.watch(self.layout.settings.load_seconds, on_ready, self._output.say)
        self._tasks.append(asyncio.create_task(watching))

    def _say_ready(self, process: ManagedProcess, seconds: float) -> None:
        self._output.say(f"{process.plan.name} is ready after {seconds:.1f} s: {process.plan.url}/docs")

    def _follow(self) -> None:
        if self.layout.settings.reload:
            following = watch_folder(self._selection.folder, self.runners.follow, self._output)
            self._tasks.append(asyncio.create_task(following))
            self._output.say(f"{self._selection.folder} is followed: what is saved there takes over, new folders join")

    async def _stop(self) -> None:
        """Stops runners first: runs that do not finish in time go back into the queue without costing an attempt."""
        self.is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.runners.stop()
        for service in self._services:
            await service.stop()
        await self._discovery.stop()
        self._state_file = None
        self._files.close()

    def _write_state(self) -> None:
        if self._state_file is None:
            return
        state = EnvironmentState(
            gateway=self.layout.gateway_url,
            discovery=self.layout.discovery_url,
            folder=self._selection.folder,
            follows=self._selection.folder if self.layout.settings.reload else None,
            runners=self.runners.state(),
        )
        try:
            self._state_file.write(state)
        except OSError as error:  # such as a full disk, which must not stop anything
            self._output.say(f"worker status shows an older state, since it cannot be written: {error.strerror}")


class Interrupted(Exception):
    """A person or a supervisor asked to stop; everything has been stopped."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped on request")
        self.exit_code = exit_code


async def run_environment(environment: Environment, body: Callable[[Environment], Awaitable[T]], output: Output) -> T:
    """Starts the environment, awaits `body`, stops the environment. Raises Interrupted after a signal."""
    loop = asyncio.get_running_loop()

    async def live() -> T:
        async with environment:
            return await body(environment)

    life = asyncio.ensure_future(live())
    asked = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal asked
        # A terminal that closes sends it twice, itself and through its shell.
        asked = max(asked, 1) if number is signal.SIGHUP else asked + 1
        if asked > 1:
            environment.kill()
        elif not environment.is_stopping:
            life.cancel()
            output.say("stopping; once more kills")

    # nohup ignores this signal, and it stays ignored.
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [number for number in _SIGNALS if not (is_ignored and number is signal.SIGHUP)]
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            return await life
        raise Interrupted(_KILLED if asked > 1 else 0)
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
