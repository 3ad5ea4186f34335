"""One way to start and stop every service: components on an exit stack, signals, a bounded stop."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from runnerlib.service.logs import get_logger
from runnerlib.service.settings import ServiceSettings
from runnerlib.service.watchdog import LoopWatchdog

#: How often a process with `exit_with_parent` looks whether its parent is still there.
PARENT_POLL_SECONDS = 0.5
#: After the grace, components get this long before they are cancelled,
CANCEL_AFTER_SECONDS = 2.0
#: and the whole stop this long before the process ends whatever happens.
EXIT_AFTER_SECONDS = 5.0
#: New objects between two passes of the garbage collector. With Python's 700 it took a fifth of a busy controller's
#: time: a batch of tasks is thousands of objects, which live until it is over.
COLLECT_AFTER_OBJECTS = 20_000

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = get_logger(__name__)

Build = Callable[[AsyncExitStack], Awaitable[None]]


class StartupError(Exception):
    """Something that the operator must change; the text says what. Shown without a traceback."""


class _Stop:
    """Why the service should end: decided once, by a signal, a lost parent or a failed component."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: "_StopLimit") -> None:
        self._loop = loop
        self._limit = limit
        self.requested: asyncio.Future[None] = loop.create_future()
        self.exit_code = 0
        self.signalled = False

    def request(self, exit_code: int = 0) -> None:
        self.exit_code = max(self.exit_code, exit_code)
        # Before anything is stopped: the first component may already block the loop.
        self._limit.start()
        if not self.requested.done():
            self.requested.set_result(None)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signalled:
            # The second signal: do not wait.
            os._exit(128 + number)
        self.signalled = True
        self._loop.call_soon_threadsafe(self.request)


#: The service that runs the current task, so that `background` works in components at any depth.
_current_stop: ContextVar["_Stop | None"] = ContextVar("_current_stop", default=None)


def run_service(build: Build, settings: ServiceSettings) -> int:
    """Runs a service until SIGTERM, SIGINT or the failure of a component; returns the exit code.

    `build` enters the components on the stack it is given; they are left in reverse order. A second signal ends the
    process at once. The stop is bounded by ``grace_seconds`` + 5 s. Between start and stop it ends when its event
    loop stands still for ``watchdog_seconds``.
    """
    limit = _StopLimit(settings.grace_seconds + EXIT_AFTER_SECONDS)
    try:
        return _run_loop(_serve(build, settings, limit))
    finally:
        limit.dismiss()


def background(stack: AsyncExitStack, coroutine: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    """Starts a task that is cancelled and awaited when the stack is left.

    Its failure is logged and ends the service; outside of :func:`run_service` leaving the stack raises it.
    """
    stop = _current_stop.get()
    task = asyncio.get_running_loop().create_task(coroutine, name=name)

    def report(done: "asyncio.Task[None]") -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None and stop is not None:
            _log_failure(f"{name} failed; the service stops", error)
            stop.request(exit_code=1)

    async def finish() -> None:
        task.cancel()
        await asyncio.wait([task])
        if stop is None and not task.cancelled():
            task.result()

    task.add_done_callback(report)
    stack.push_async_callback(finish)
    return task


async def _serve(build: Build, settings: ServiceSettings, limit: "_StopLimit") -> int:
    stop = _Stop(asyncio.get_running_loop(), limit)
    _current_stop.set(stop)
    with _signals(stop):
        life = asyncio.ensure_future(_live(build, settings, stop))
        await asyncio.wait([life, stop.requested], return_when=asyncio.FIRST_COMPLETED)
        if not life.done():
            await asyncio.wait([life], timeout=settings.grace_seconds + CANCEL_AFTER_SECONDS)
        if not life.done():
            log.warning("the stop takes longer than grace_seconds; what remains is cancelled")
            life.cancel()
        await asyncio.wait([life])
        return _verdict(life, stop)


async def _live(build: Build, settings: ServiceSettings, stop: _Stop) -> None:
    """Start, wait, stop. A stop request during the start interrupts it."""
    async with AsyncExitStack() as stack:
        if settings.exit_with_parent:
            background(stack, _watch_parent(os.getppid(), stop), "parent watch")
        starting = asyncio.ensure_future(build(stack))
        try:
            await asyncio.wait([starting, stop.requested], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is not None:
            stop.request(exit_code=1)
            starting.result()
        # What is loaded now stays: the collector need not scan it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER_OBJECTS)
        # Not before: a start may have much to do, e.g. change the tables of a database.
        with LoopWatchdog(asyncio.get_running_loop(), settings.watchdog_seconds):
            await asyncio.wait([stop.requested])


def _verdict(life: "asyncio.Future[None]", stop: _Stop) -> int:
    error = None if life.cancelled() else life.exception()
    if error is not None:
        _log_failure("the service failed", error)
    return 1 if error is not None or life.cancelled() else stop.exit_code


def _log_failure(event: str, error: BaseException) -> None:
    if isinstance(error, StartupError):
        log.error(str(error))
    else:
        log.error(event, exc_info=error)


async def _watch_parent(parent: int, stop: _Stop) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for this
        await asyncio.sleep(PARENT_POLL_SECONDS)
    log.warning("the process that started this one is gone; stopping")
    stop.request()


@contextmanager
def _signals(stop: _Stop) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = {number: signal.signal(number, stop.on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StopLimit:
    """Ends the process when the stop takes too long, even when the event loop or a thread hangs."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._exit)
        self._timer.daemon = True
        self._started = False

    def start(self) -> None:
        if not self._started:
            self._started = True
            self._timer.start()

    def dismiss(self) -> None:
        self._timer.cancel()

    @staticmethod
    def _exit() -> None:
        sys.stderr.write("the stop hangs; the process ends now\n")
        sys.stderr.flush()
        os._exit(1)


def _run_loop(main: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
