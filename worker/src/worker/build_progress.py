"""Shows how far the making of virtual environments is: moving lines on a terminal, a line for each event elsewhere."""

import time
from types import TracebackType

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from worker.output import Output

_WIDTH = 80
#: What stands before it on a moving line: spinner, name, time.
_BEFORE = 34
#: Where no line moves, a new one says as often how far it is.
_LINE_SECONDS = 10.0


class BuildProgress:
    """``with progress: await builder.ensure(runner, progress.step)``, as often and as many at a time as needed."""

    def __init__(self, output: Output, *, line_seconds: float = _LINE_SECONDS) -> None:
        self._output = output
        self._line_seconds = line_seconds
        self._started: dict[str, float] = {}
        self._told: dict[str, float] = {}
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

    def __enter__(self) -> "BuildProgress":
        self._users += 1
        if self._users == 1:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._users -= 1
        if not self._users:
            self._progress.stop()

    def step(self, name: str, what: str, *, notice: str = "") -> None:
        """One step of one environment; before the first one, `notice` says what a person should know."""
        now = time.monotonic()
        if name not in self._started:
            self._started[name] = self._told[name] = now
            self._rows[name] = self._progress.add_task("", name=name)
            self._output.say(f"{name}: setting up its virtual environment (once; later starts use it again)")
            for line in notice.splitlines():
                self._output.say(f"{name}: {line}")
        # Cut here: too long a description takes the room of what stands before it.
        room = max(0, min(_WIDTH, self._output.console.width - _BEFORE))
        self._progress.update(self._rows[name], description=what[:room])
        if not self._output.is_terminal and now - self._told[name] >= self._line_seconds:
            self._told[name] = now
            self._output.say(f"{name}: {now - self._started[name]:.0f} s, {what[:_WIDTH]}")

    def done(self, name: str) -> None:
        """Says how long it took; nothing for one that was there already."""
        if name in self._started:
            self._forget(name)
            self._output.say(
                f"{name}: virtual environment ready after {time.monotonic() - self._started.pop(name):.0f} s"
            )

    def failed(self, name: str) -> None:
        """Its line goes; whoever called says why."""
        if name in self._started:
            self._forget(name)
            del self._started[name]

    def _forget(self, name: str) -> None:
        self._progress.remove_task(self._rows.pop(name))
