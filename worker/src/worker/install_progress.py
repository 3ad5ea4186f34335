"""Shows how far the installation of virtual environments is: moving lines on a terminal, else a line now and then."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from worker.output import Output

_WIDTH = 80
#: What stands before the description on a moving line: spinner, name, time.
_BEFORE = 34
#: Without moving lines, a line is printed this often.
_LINE_SECONDS = 10.0
_SIZE_SECONDS = 2.0
_MEGABYTE = 1_000_000

#: Called with the name of a runner and the step that its installation has reached.
Report = Callable[[str, str], None]


class InstallProgress:
    """``with progress: await builder.ensure(runner, progress.step)``, as often and as many at a time as needed."""

    def __init__(self, output: Output, *, line_seconds: float = _LINE_SECONDS) -> None:
        self._output = output
        self._line_seconds = line_seconds
        self._started: dict[str, float] = {}
        self._printed: dict[str, float] = {}
        self._rows: dict[str, TaskID] = {}
        self._users = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[name]:<12}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=output.console,
            transient=True,
            disable=not output.is_terminal,
        )

    def __enter__(self) -> "InstallProgress":
        self._users += 1
        if self._users == 1:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self._progress.stop()

    def step(self, name: str, what: str, *, notice: str = "") -> None:
        """One step of one environment; `notice` is shown before the first one."""
        now = time.monotonic()
        if name not in self._started:
            self._started[name] = self._printed[name] = now
            self._rows[name] = self._progress.add_task("", name=name)
            self._output.say(f"{name}: setting up its virtual environment (once; later starts use it again)")
            for line in notice.splitlines():
                self._output.say(f"{name}: {line}")
        # Cut here: too long a description takes the room of what stands before it.
        room = max(0, min(_WIDTH, self._output.console.width - _BEFORE))
        self._progress.update(self._rows[name], description=what[:room])
        if not self._output.is_terminal and now - self._printed[name] >= self._line_seconds:
            self._printed[name] = now
            self._output.say(f"{name}: {now - self._started[name]:.0f} s, {what[:_WIDTH]}")

    def done(self, name: str) -> None:
        """Says how long it took, unless the environment was there already."""
        started_at = self.failed(name)
        if started_at is not None:
            self._output.say(f"{name}: virtual environment ready after {time.monotonic() - started_at:.0f} s")

    def failed(self, name: str) -> float | None:
        """Removes its line, without a word: the caller says why. Returns when it was started."""
        if name in self._rows:
            self._progress.remove_task(self._rows.pop(name))
        return self._started.pop(name, None)


@contextlib.asynccontextmanager
async def with_size(
    folder: Path, report: Callable[[str], None], *, seconds: float = _SIZE_SECONDS
) -> AsyncIterator[Callable[[str], None]]:
    """Yields a `report` that repeats the last step with the size of the folder, while something fills it."""
    last = ""

    def step(what: str) -> None:
        nonlocal last
        last = what
        report(what)

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            size = await asyncio.to_thread(bytes_in, folder)
            report(f"{size / _MEGABYTE:.0f} MB on disk: {last}")

    repeating = asyncio.create_task(repeat())
    try:
        yield step
    finally:
        repeating.cancel()
        await asyncio.wait([repeating])


def bytes_in(folder: Path) -> int:
    """The size of its files. Those that come and go meanwhile may count or not."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
