"""What the worker prints: whole lines with the name of the process that wrote them, tables, how far installations are.

Printing never fails, and never waits for the reader.
"""

import contextlib
import errno
import io
import json
import os
import select
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO, cast

from rich.console import Console, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

#: Colours that are readable on light and dark terminals.
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
#: A file or a pipe has no width of its own.
_PIPE_COLUMNS = 180
_OWN_NAME = "worker"
_NAME_WIDTH = 10
#: Bytes kept for a reader that does not read; more is dropped.
_MOST_WAITING = 4_000_000
#: How long to wait for such a reader at the end.
_LAST_SECONDS = 1.0
#: The reader is gone for good, the terminal was closed.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
#: Characters of what is shown of a step of an installation, and of what stands before it: spinner, name, time.
_STEP_WIDTH, _BEFORE_STEP = 80, 34
#: Without moving lines, how far an installation is is printed this often.
_STEP_SECONDS = 10.0

#: Called with each step of an installation.
Report = Callable[[str], None]


class NonBlockingStream(io.TextIOBase):
    """Writes to a descriptor and never fails or waits: a supervisor of processes must not depend on who reads.

    Text is dropped when the reader has gone or does not read, and while a disk is full.
    """

    def __init__(self, descriptor: int, *, as_json: bool = False) -> None:
        self._descriptor = descriptor
        self._as_json = as_json
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._gone = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        content = text.encode("utf-8", "replace")
        with self._changed:
            if self._thread is None:
                # A daemon: a reader that never reads must not keep this process alive.
                self._thread = threading.Thread(target=self._work, name="output", daemon=True)
                self._thread.start()
            if self._gone or self._bytes > _MOST_WAITING:
                self._dropped += content.count(b"\n")
            else:
                self._waiting.append(content)
                self._bytes += len(content)
                self._changed.notify_all()
        return len(text)

    def drain(self, seconds: float = _LAST_SECONDS) -> None:
        """Waits until all is written, within this time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes or self._gone, seconds)

    def _work(self) -> None:
        while not self._gone:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                content = b"".join(self._waiting)
                self._waiting.clear()
                dropped = self._dropped
            if dropped:
                content = self._notice(dropped) + content
            lost = self._put(content)
            with self._changed:
                self._dropped += lost - (0 if lost else dropped)
                self._bytes = sum(map(len, self._waiting))
                self._changed.notify_all()

    def _notice(self, dropped: int) -> bytes:
        text = f"{dropped} lines are missing here: they could not be written"
        line = (
            json.dumps({"service": _OWN_NAME, "event": text})
            if self._as_json
            else f"{_OWN_NAME:<{_NAME_WIDTH}} │ {text}"
        )
        # What could not be written may have ended within a line.
        return f"\n{line}\n".encode()

    def _put(self, content: bytes) -> int:
        """Returns how many lines could not be written."""
        left = memoryview(content)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], 1.0)
            except OSError as error:
                self._gone = error.errno in _GONE
                return bytes(left).count(b"\n")
        return 0


def standard_output(*, as_json: bool) -> TextIO:
    """The stdout of a program that goes on even if nobody reads it."""
    if sys.stdout is not sys.__stdout__:
        return sys.stdout
    return cast(TextIO, NonBlockingStream(1, as_json=as_json))


def open_standard_streams() -> None:
    """Opens those that the caller closed (`>&-`): else the next open file would take their place and be written to."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - to the end of the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


class Output:
    """Writes whole lines, so that two processes never share one.

    As JSON, a line that is not a JSON object already is wrapped into one, so that a log collector can read everything.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False) -> None:
        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        self.as_json = as_json

    @property
    def is_terminal(self) -> bool:
        return self.console.is_terminal

    def line(self, name: str, text: str) -> None:
        """One line of a process."""
        if self.as_json:
            self._write(text if _is_json_object(text) else json.dumps({"service": name, "event": text}))
        elif self.is_terminal:
            prefix = Text(f"{name:<{_NAME_WIDTH}} │ ", style=_colour(name))
            self.console.print(prefix + Text.from_ansi(text))
        else:
            self._write(f"{name:<{_NAME_WIDTH}} │ {text}")

    def say(self, text: str) -> None:
        """One or more lines of the worker itself."""
        for line in text.splitlines():
            self.line(_OWN_NAME, line)

    def show(self, table: RenderableType) -> None:
        """Prints a table: as wide as it needs on a pipe, no wider than the terminal on one."""
        width = self.console.width if self.is_terminal else _PIPE_COLUMNS
        Console(file=self.console.file, width=width, highlight=False).print(table)

    def drain(self) -> None:
        """At the end: gives a slow reader a moment."""
        if isinstance(self.console.file, NonBlockingStream):
            self.console.file.drain()

    def _write(self, text: str) -> None:
        self.console.file.write(text + "\n")
        self.console.file.flush()


def _colour(name: str) -> str:
    """The same for the same name each time (`hash` differs between two starts)."""
    return "bold white" if name == _OWN_NAME else _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]


def _is_json_object(text: str) -> bool:
    try:
        return text.startswith("{") and isinstance(json.loads(text), dict)
    except ValueError:
        return False


class InstallProgress:
    """How far installations of virtual environments are: moving lines on a terminal, else a line now and then."""

    def __init__(self, output: Output, *, line_seconds: float = _STEP_SECONDS) -> None:
        self._output = output
        self._line_seconds = line_seconds
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[name]:<12}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=output.console,
            transient=True,
            disable=not output.is_terminal,
        )

    @contextlib.contextmanager
    def installing(self, name: str, notice: str = "") -> Iterator[Report]:
        """Yields the `report` of one installation, of which several may be in progress.

        Shows `notice` before its first step, and how long it took at its end. Shows nothing without any step: the
        environment was there already.
        """
        say, row, started_at, printed_at = self._output.say, None, 0.0, 0.0

        def report(what: str) -> None:
            nonlocal row, started_at, printed_at
            now = time.monotonic()
            if row is None:
                started_at = printed_at = now
                self._progress.start()
                row = self._progress.add_task("", name=name)
                say(f"{name}: setting up its virtual environment (once; later starts use it again)")
                for line in notice.splitlines():
                    say(f"{name}: {line}")
            # Cut here: too long a description takes the room of what stands before it.
            room = max(0, min(_STEP_WIDTH, self._output.console.width - _BEFORE_STEP))
            self._progress.update(row, description=what[:room])
            if not self._output.is_terminal and now - printed_at >= self._line_seconds:
                printed_at = now
                say(f"{name}: {now - started_at:.0f} s, {what[:_STEP_WIDTH]}")

        try:
            yield report
            if row is not None:
                say(f"{name}: virtual environment ready after {time.monotonic() - started_at:.0f} s")
        finally:
            if row is not None:
                self._progress.remove_task(row)
                if not self._progress.tasks:
                    self._progress.stop()
