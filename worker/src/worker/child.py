"""A child process with its lines. It leads a group of its own: Ctrl-C in the terminal reaches the worker alone."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.lines import read_lines

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
        """Returns at its end, also when something it started lives on and holds its output open."""
        return await self.process.wait()

    def lines(self) -> AsyncIterator[str]:
        """What it and its own children write, both streams together."""
        return read_lines(self.output)

    def ask_to_stop(self) -> None:
        """SIGTERM to the child alone; it stops its own children in its own order."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill_group(self) -> None:
        """Kills it and what it started, or what is left of that. Harmless when nothing is."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def start_child(
    command: Sequence[str], *, folder: Path | None, environment: Mapping[str, str]
) -> AsyncIterator[Child]:
    """Starts a child; on leaving nothing of it is left. Raises OSError when it cannot be started."""
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


async def rest_of(reading: "asyncio.Task[None]") -> None:
    """Lets a task that reads an ended child's lines come to the end of them, within bounds."""
    await asyncio.wait([reading], timeout=_LAST_LINES_SECONDS)
    reading.cancel()
    await asyncio.wait([reading])
