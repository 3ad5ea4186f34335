"""A child process and its lines. It leads its own process group: Ctrl-C in the terminal reaches the worker alone."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK = 64 * 1024
#: After the end of a process: how long its last lines may take to arrive.
_LAST_LINES_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """What to start, and how to keep it alive."""

    name: str
    command: tuple[str, ...]
    url: str
    environment: dict[str, str]
    folder: Path | None = None
    #: between SIGTERM and SIGKILL
    stop_seconds: float = 12
    #: exit codes after which starting it again would change nothing, and what to say then
    fatal_exit_codes: frozenset[int] = field(default_factory=frozenset)
    advice: str = ""
    #: before it is started again after its first death, and at most after many
    first_delay_seconds: float = 0.5
    most_delay_seconds: float = 30.0


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

    def ask_to_stop(self) -> None:
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


async def finish_reading(reading: "asyncio.Task[None]") -> None:
    """Lets a task that reads an ended child's lines reach the end of them, within bounds."""
    await asyncio.wait([reading], timeout=_LAST_LINES_SECONDS)
    reading.cancel()
    await asyncio.wait([reading])


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
