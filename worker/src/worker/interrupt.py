"""Ctrl-C, SIGTERM and a terminal that closes: once is a clean stop, twice is a kill."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

from worker.output import Output
from worker.up import Environment

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The exit code that a shell expects of a program that was killed by Ctrl-C.
_KILLED = 130
T = TypeVar("T")


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
