"""Groups lines into requests: as many messages, and as many bytes, as the gateway takes at once. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from producer.sending.line_task import BadLine, LineTask
from producer.sending.lines import Line

#: The gateway takes 1,000 messages and 16 MiB in one request; half of that keeps both sides' memory small.
MOST_TASKS = 1000
MOST_BYTES = 8 * 1024 * 1024
#: So that a file of nothing but bad lines is told in steps, too.
_MOST_BAD = 1000


@dataclass(slots=True)
class Window:
    """Lines that belong together, in order. `last` is the last of them, good or bad."""

    tasks: list[LineTask] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    size: int = 0
    last: Line | None = None

    def has_room(self, read: LineTask | BadLine) -> bool:
        if isinstance(read, BadLine):
            return len(self.bad) < _MOST_BAD
        is_small = self.size + len(read.body) + 1 <= MOST_BYTES
        return not self.tasks or (len(self.tasks) < MOST_TASKS and is_small)

    def add(self, read: LineTask | BadLine) -> None:
        self.last = read.line
        if isinstance(read, BadLine):
            self.bad.append(read)
        else:
            self.tasks.append(read)
            self.size += len(read.body) + 1


def windows(lines: Iterable[LineTask | BadLine]) -> Iterator[Window]:
    window = Window()
    for read in lines:
        if not window.has_room(read):
            yield window
            window = Window()
        window.add(read)
    if window.last is not None:
        yield window
