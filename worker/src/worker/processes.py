"""One process of the environment: started, its lines shown, started again when it dies, stopped within bounds."""

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from worker.backoff import FIRST_SECONDS, Backoff
from worker.errors import StartFailed
from worker.lines import read_lines
from worker.output import Output
from worker.process_group import ask_to_stop, end_group

#: How often a starting process is asked whether it is ready.
_ASK_SECONDS = 0.05
#: After the end of a process: how long its last lines may take to arrive.
_LAST_LINES_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """What to start. `hopeless` are exit codes after which starting it again would change nothing."""

    name: str
    command: tuple[str, ...]
    url: str
    environment: dict[str, str]
    folder: Path | None = None
    stop_seconds: float = 12
    hopeless: frozenset[int] = field(default_factory=frozenset)
    #: what to say after a hopeless end
    advice: str = ""
    first_delay_seconds: float = FIRST_SECONDS


class ManagedProcess:
    """Keeps one planned process alive between :meth:`start` and :meth:`stop`."""

    def __init__(self, plan: ProcessPlan, output: Output) -> None:
        self.plan = plan
        self.restarts = 0
        self._output = output
        self._ready_pid: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._kill = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def has_given_up(self) -> bool:
        """It ended and will not be started again."""
        return self._keeper is not None and self._keeper.done()

    @property
    def is_ready(self) -> bool:
        """Whether it lives and :meth:`wait_ready` has seen it ready since its last start."""
        return self.pid is not None and self._ready_pid == self.pid

    def start(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_alive(), name=f"keep {self.plan.name} alive")

    async def wait_ready(self, timeout_seconds: float, *, most_restarts: int | None = None) -> None:
        """Returns when ``/healthz/ready`` says so. Raises StartFailed when it ended for good, or after the time.

        With `most_restarts` it is also given up when it died more often than that.
        """
        deadline = time.monotonic() + timeout_seconds
        said = "it does not answer"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while not self.has_given_up and time.monotonic() < deadline:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.plan.url}/healthz/ready") as answer:
                        if answer.status == 200 and self.pid is not None:
                            self._ready_pid = self.pid
                            return
                        said = f"it answers {answer.status}: {(await answer.text())[:300]}"
                if most_restarts is not None and self.restarts > most_restarts:
                    raise StartFailed(f"{self.plan.name} does not stay alive; its last lines above say why")
                await asyncio.sleep(_ASK_SECONDS)
        if self.has_given_up:
            raise StartFailed(f"{self.plan.name} ended before it was ready; its last lines above say why")
        raise StartFailed(f"{self.plan.name} was not ready after {timeout_seconds:g} s: {said}")

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after the plan's time; also to what it started itself. Idempotent."""
        self._stop.set()
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    def kill(self) -> None:
        """At once, with everything it started; :meth:`stop` then only waits for its end."""
        self._stop.set()
        self._kill.set()
        if self._process is not None and self._process.returncode is None:
            end_group(self._process.pid)

    async def _keep_alive(self) -> None:
        backoff = Backoff(self.plan.first_delay_seconds)
        while True:
            started_at = time.monotonic()
            ended = await self._run_once()
            if self._stop.is_set():
                return
            delay = backoff.next_seconds(time.monotonic() - started_at)
            self._output.say(f"{self.plan.name} {ended}; it is started again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
                return
            self.restarts += 1

    async def _run_once(self) -> str:
        """From its start to its end; says how it ended."""
        try:
            process = await self._spawn()
        except OSError as error:
            return f"cannot be started ({error})"
        self._process = process
        assert process.stdout is not None
        reader = asyncio.create_task(self._show(process.stdout))
        try:
            code = await self._until_end(process)
        finally:
            # Nothing that a dead process started may keep its port, its memory or our pipe.
            end_group(process.pid)
            await asyncio.wait([reader], timeout=_LAST_LINES_SECONDS)
            reader.cancel()
        if code in self.plan.hopeless and not self._stop.is_set():
            self._output.say(f"{self.plan.name} is not started again: {self.plan.advice}")
            self._stop.set()
        return _how_it_ended(code)

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.plan.command,
            env=self.plan.environment,
            cwd=self.plan.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def _until_end(self, process: asyncio.subprocess.Process) -> int:
        end = asyncio.create_task(process.wait())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([end, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not end.done():
            ask_to_stop(process.pid)
            kill = asyncio.create_task(self._kill.wait())
            timeout = self.plan.stop_seconds
            await asyncio.wait([end, kill], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            kill.cancel()
            if not end.done():
                if not self._kill.is_set():
                    self._output.say(f"{self.plan.name} did not stop within {timeout:g} s and is killed")
                end_group(process.pid)
        return await end

    async def _show(self, stream: asyncio.StreamReader) -> None:
        async for line in read_lines(stream):
            self._output.line(self.plan.name, line)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
