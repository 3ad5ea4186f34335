"""What the terminal shows: each line with the name of the process that wrote it."""

import json
import zlib
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

#: Colours that are readable on light and dark terminals.
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
#: A file or a pipe has no width of its own.
_PIPE_COLUMNS = 180
_OWN_NAME = "worker"


class Output:
    """Writes whole lines, so that two processes never share one.

    As JSON, a line that is not a JSON object already is wrapped into one, so that a log collector can read everything.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False, width: int = 10) -> None:
        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        self.as_json = as_json
        self._width = width

    @property
    def is_terminal(self) -> bool:
        return self.console.is_terminal

    def line(self, name: str, text: str) -> None:
        """One line of a process."""
        if self.as_json:
            self._write(text if _is_json_object(text) else json.dumps({"service": name, "event": text}))
        elif self.is_terminal:
            prefix = Text(f"{name:<{self._width}} │ ", style=_colour(name))
            self.console.print(prefix + Text.from_ansi(text))
        else:
            self._write(f"{name:<{self._width}} │ {text}")

    def say(self, text: str) -> None:
        """One or more lines of the worker itself."""
        for line in text.splitlines():
            self.line(_OWN_NAME, line)

    def show(self, table: RenderableType) -> None:
        """A table or more; on a pipe as wide as it needs."""
        if self.is_terminal:
            self.console.print(table)
        else:
            Console(file=self.console.file, width=_PIPE_COLUMNS, highlight=False).print(table)

    def _write(self, text: str) -> None:
        self.console.file.write(text + "\n")
        self.console.file.flush()


def _colour(name: str) -> str:
    """The same name has the same colour each time (`hash` differs between two starts)."""
    return "bold white" if name == _OWN_NAME else _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]


def _is_json_object(text: str) -> bool:
    try:
        return text.startswith("{") and isinstance(json.loads(text), dict)
    except ValueError:
        return False
