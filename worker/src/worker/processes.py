"""Child processes: their lines, their ends; and those that are kept alive, restarted with back-off, stopped in time.

A child leads its own process group: Ctrl-C in the terminal reaches the worker alone.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from runnerlib.contract import HEADER_BOOT
from runnerlib.service.backoff import Backoff
from worker.errors import StartFailed
from worker.output import Output
from worker.plan import ProcessPlan

#: How often a starting process is asked whether it is ready.
_POLL_SECONDS = 0.05
#: How often one that was ready is looked at, to tell when it is ready again after a restart.
_LOOK_SECONDS = 0.5
#: How many of its last lines are kept, to tell why it ended.
_LAST_LINES = 12
#: A process that was ready or lived for so long was healthy: after its death the delays start over.
READY_SECONDS, HEALTHY_SECONDS = 2.0, 60.0
#: What a worker process that has not loaded yet gives as its reason; anything else is why it cannot load.
_LOADING = "loading"
#: Parts whose name begins so are about one algorithm; readers want to know which.
_OF_ALGORITHM = ("worker processes of ", "registration of ")
_CHUNK = 64 * 1024
#: After the end of a process: how long its last lines may take to arrive.
_LAST_LINES_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Child:
    """A running or ended child. `returncode` is negative for a signal."""

    process: asyncio.subprocess.Process
    output: asyncio.StreamReader

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process.returncode is None

    async def wait(self) -> int:
        """Returns when it ends, even if something that it started lives on and holds its output open."""
        return await self.process.wait()

    async def lines(self) -> AsyncIterator[str]:
        """What it and its own children write to stdout and stderr, until all of them have ended."""
        splitter = LineSplitter()
        while chunk := await self.output.read(_CHUNK):
            for line in splitter.feed(chunk):
                yield line
        for line in splitter.end():
            yield line

    def terminate(self) -> None:
        """Sends SIGTERM to the child alone; it stops its own children in its own order."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill_group(self) -> None:
        """Kills it and what it started, or what is left of that. Harmless if nothing is."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def start_child(
    command: Sequence[str], *, folder: Path | None, environment: Mapping[str, str]
) -> AsyncIterator[Child]:
    """Starts a child; on leaving, nothing of it is left. Raises OSError if it cannot be started."""
    loop = asyncio.get_running_loop()
    # A pipe of our own, not asyncio's: with that, wait() would wait for the last holder of the pipe.
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader(loop=loop)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        child = Child(process, reader)
        try:
            yield child
        finally:
            child.kill_group()
            await process.wait()
    finally:
        transport.close()


async def run_to_end(
    command: Sequence[str], on_line: Callable[[str], None], *, folder: Path | None, environment: Mapping[str, str]
) -> int:
    """Calls `on_line` with each line of a child; returns its exit code. Raises OSError if it cannot be started."""
    async with start_child(command, folder=folder, environment=environment) as child:
        async for line in child.lines():
            on_line(line)
        return await child.wait()


class LineSplitter:
    """Turns chunks of bytes into whole lines. A line that never ends is cut, so that memory stays bounded."""

    #: longer than any log line of ours; a progress bar or a dump is cut here
    LIMIT = 64 * 1024

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > self.LIMIT:
            lines.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace") for line in lines]

    def end(self) -> list[str]:
        """What is left when the writer has closed the stream."""
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest else []


class ManagedProcess:
    """Keeps one planned process alive between :meth:`start` and :meth:`stop`."""

    def __init__(self, plan: ProcessPlan, output: Output) -> None:
        self.plan = plan
        self.restarts = 0
        #: boot id of the process that answered last; empty when it tells none
        self.boot = ""
        #: part of it → why that cannot work, as it answered last
        self.reasons: dict[str, str] = {}
        #: when it was last seen to become ready, in seconds of the clock on the wall
        self.ready_at: float | None = None
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._output = output
        self._ready_pid: int | None = None
        #: of the monotonic clock
        self._ready_since = 0.0
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._kill = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._child.pid if self._child is not None and self._child.lives else None

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

    async def wait_ready(
        self,
        timeout_seconds: float,
        *,
        most_restarts: int | None = None,
        tell: Callable[[str], None] | None = None,
        is_enough: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Returns when ``/healthz/ready`` answers 200. Raises StartFailed if it ended for good, or after the time.

        Also raises StartFailed if it died more often than `most_restarts`. `tell` is called with each new reason why
        it cannot load; it may go on trying. `is_enough` is asked after each answer that gives `reasons`: True ends the
        waiting.
        """
        deadline = time.monotonic() + timeout_seconds
        said, told = "it does not answer", ""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while not self.has_given_up and time.monotonic() < deadline:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.plan.url}/healthz/ready") as answer:
                        self.boot = answer.headers.get(HEADER_BOOT, "")
                        if answer.status == 200 and self.pid is not None:
                            self._became_ready()
                            return
                        text = await answer.text()
                    self.reasons = parse_reasons(text)
                    if self.reasons and is_enough is not None and await is_enough():
                        return
                    reason = "; ".join(explained(self.reasons))
                    said = reason or f"it answers {answer.status}: {text[:300]}"
                    if tell is not None and reason not in ("", told):
                        told = reason
                        tell(reason)
                if most_restarts is not None and self.restarts > most_restarts:
                    raise StartFailed(f"{self.plan.name} does not stay alive; its last lines above say why")
                await asyncio.sleep(_POLL_SECONDS)
        if self.has_given_up:
            raise StartFailed(f"{self.plan.name} ended before it was ready; its last lines above say why")
        raise StartFailed(f"{self.plan.name} was not ready after {timeout_seconds:g} s: {said}")

    def _became_ready(self) -> None:
        if self._ready_pid != self.pid:
            self._ready_since = time.monotonic()
        self._ready_pid = self.pid
        self.reasons = {}
        self.ready_at = time.time()

    async def watch(
        self,
        timeout_seconds: float,
        on_ready: Callable[[float], None],
        on_failure: Callable[[str], None],
        *,
        on_unready: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Until it ends for good: calls `on_ready` with the seconds that this took whenever it is ready, also after
        each restart, and `on_failure` with a sentence when it is not in time. `tell` is that of :meth:`wait_ready`.
        """
        while not self.has_given_up:
            if self.is_ready:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            on_unready()
            started_at = time.monotonic()
            try:
                await self.wait_ready(timeout_seconds, tell=tell)
            except StartFailed as error:
                on_failure(str(error))
            else:
                on_ready(time.monotonic() - started_at)

    async def stop(self) -> None:
        """Sends SIGTERM, then SIGKILL after the plan's time, also to what it started itself. Idempotent."""
        self._stop.set()
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    def kill(self) -> None:
        """Kills it and everything it started; :meth:`stop` then only waits for its end."""
        self._stop.set()
        self._kill.set()
        if self._child is not None and self._child.lives:
            self._child.kill_group()

    async def _keep_alive(self) -> None:
        backoff = RestartBackoff(self.plan.first_delay_seconds, self.plan.most_delay_seconds)
        while True:
            started_at = time.monotonic()
            ended = await self._run_once()
            if self._stop.is_set():
                return
            ended_at = time.monotonic()
            was_ready = self._child is not None and self._child.pid == self._ready_pid
            self._ready_pid = None
            delay = backoff.after(ended_at - started_at, ended_at - self._ready_since if was_ready else 0.0)
            self._output.say(f"{self.plan.name} {ended}; it is started again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
                return
            self.restarts += 1

    async def _run_once(self) -> str:
        """Runs it from its start to its end; returns how it ended."""
        plan = self.plan
        try:
            async with start_child(plan.command, folder=plan.folder, environment=plan.environment) as child:
                self._child = child
                reading = asyncio.create_task(self._show(child))
                code = await self._until_end(child)
                # Nothing that a dead process started may keep its port, its memory or our pipe.
                child.kill_group()
                await asyncio.wait([reading], timeout=_LAST_LINES_SECONDS)
                reading.cancel()
                await asyncio.wait([reading])
        except OSError as error:
            return f"cannot be started ({error})"
        if code in plan.fatal_exit_codes and not self._stop.is_set():
            self._output.say(f"{plan.name} is not started again: {plan.advice}")
            self._stop.set()
        return _how_it_ended(code)

    async def _until_end(self, child: Child) -> int:
        end = asyncio.create_task(child.wait())
        await _first_of(end, self._stop)
        if not end.done():
            child.terminate()
            await _first_of(end, self._kill, self.plan.stop_seconds)
            if not end.done():
                if not self._kill.is_set():
                    self._output.say(f"{self.plan.name} did not stop within {self.plan.stop_seconds:g} s and is killed")
                child.kill_group()
        return await end

    async def _show(self, child: Child) -> None:
        async for line in child.lines():
            self.last_lines.append(line)
            self._output.line(self.plan.name, line)


async def _first_of(end: "asyncio.Task[int]", event: asyncio.Event, timeout_seconds: float | None = None) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([end, waiting], timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


class RestartBackoff(Backoff):
    """The delay before each restart starts over after a healthy life."""

    def after(self, lived_seconds: float, ready_seconds: float = 0.0) -> float:
        """`ready_seconds`: how long it was ready before it died."""
        if lived_seconds >= HEALTHY_SECONDS or ready_seconds >= READY_SECONDS:
            self.reset()
        return self.next_seconds()


def parse_reasons(answer: str) -> dict[str, str]:
    """Part → why it cannot work, from an answer of ``/healthz/ready``; without those that are still loading.

    Empty if it is not an answer of one of our services.
    """
    try:
        reasons = json.loads(answer)["reasons"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {_algorithm(str(part)): str(reason) for part, reason in reasons if reason != _LOADING}


def _algorithm(part: str) -> str:
    for prefix in _OF_ALGORITHM:
        part = part.removeprefix(prefix)
    return part


def explained(reasons: Mapping[str, str], owner: str = "") -> list[str]:
    """One sentence for each reason, with the parts that have it: "ocr, describe of images are not ready: …"."""
    parts: dict[str, list[str]] = {}
    for part, reason in reasons.items():
        parts.setdefault(reason, []).append(part)
    return [
        f"{', '.join(sorted(those))}{f' of {owner}' if owner else ''} "
        f"{'is' if len(those) == 1 else 'are'} not ready: {reason}"
        for reason, those in sorted(parts.items())
    ]
