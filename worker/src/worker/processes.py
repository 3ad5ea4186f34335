"""One process of the environment: started, its lines shown, started again when it dies, stopped within bounds."""

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from runnerlib.contract import HEADER_BOOT
from worker.backoff import FIRST_SECONDS, MOST_SECONDS, Backoff
from worker.child import Child, rest_of, start_child
from worker.errors import StartFailed
from worker.output import Output
from worker.readiness import explained, reasons_in

#: How often a starting process is asked whether it is ready.
_ASK_SECONDS = 0.05
#: How many of its last lines are kept, to tell why it ended.
_LAST_LINES = 12


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
    #: before it is started again after a death, and at most after many
    first_delay_seconds: float = FIRST_SECONDS
    most_delay_seconds: float = MOST_SECONDS


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
        spared: Collection[str] = (),
    ) -> None:
        """Returns when ``/healthz/ready`` says so. Raises StartFailed when it ended for good, or after the time.

        With `most_restarts` it is also given up when it died more often than that. `tell` is called with each new
        reason why it cannot load; it may go on trying. Nor are parts waited for that are `spared`, once they failed.
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
                    self.reasons = reasons_in(text)
                    if self.reasons and self.reasons.keys() <= set(spared):
                        return
                    reason = "; ".join(explained(self.reasons))
                    said = reason or f"it answers {answer.status}: {text[:300]}"
                    if tell is not None and reason not in ("", told):
                        told = reason
                        tell(reason)
                if most_restarts is not None and self.restarts > most_restarts:
                    raise StartFailed(f"{self.plan.name} does not stay alive; its last lines above say why")
                await asyncio.sleep(_ASK_SECONDS)
        if self.has_given_up:
            raise StartFailed(f"{self.plan.name} ended before it was ready; its last lines above say why")
        raise StartFailed(f"{self.plan.name} was not ready after {timeout_seconds:g} s: {said}")

    def _became_ready(self) -> None:
        if self._ready_pid != self.pid:
            self._ready_since = time.monotonic()
        self._ready_pid = self.pid
        self.reasons = {}
        self.ready_at = time.time()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after the plan's time; also to what it started itself. Idempotent."""
        self._stop.set()
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    def kill(self) -> None:
        """At once, with everything it started; :meth:`stop` then only waits for its end."""
        self._stop.set()
        self._kill.set()
        if self._child is not None and self._child.lives:
            self._child.kill_group()

    async def _keep_alive(self) -> None:
        backoff = Backoff(self.plan.first_delay_seconds, self.plan.most_delay_seconds)
        while True:
            started_at = time.monotonic()
            ended = await self._run_once()
            if self._stop.is_set():
                return
            ended_at = time.monotonic()
            was_ready = self._child is not None and self._child.pid == self._ready_pid
            self._ready_pid = None
            delay = backoff.next_seconds(ended_at - started_at, ended_at - self._ready_since if was_ready else 0.0)
            self._output.say(f"{self.plan.name} {ended}; it is started again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
                return
            self.restarts += 1

    async def _run_once(self) -> str:
        """From its start to its end; says how it ended."""
        plan = self.plan
        try:
            async with start_child(plan.command, folder=plan.folder, environment=plan.environment) as child:
                self._child = child
                reading = asyncio.create_task(self._show(child))
                code = await self._until_end(child)
                # Nothing that a dead process started may keep its port, its memory or our pipe.
                child.kill_group()
                await rest_of(reading)
        except OSError as error:
            return f"cannot be started ({error})"
        if code in plan.hopeless and not self._stop.is_set():
            self._output.say(f"{plan.name} is not started again: {plan.advice}")
            self._stop.set()
        return _how_it_ended(code)

    async def _until_end(self, child: Child) -> int:
        end = asyncio.create_task(child.wait())
        await _first_of(end, self._stop)
        if not end.done():
            child.ask_to_stop()
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
