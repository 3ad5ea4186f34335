"""Sends the lines of a file and notes after each request how far it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from producer.client.client import GatewayClient
from producer.errors import Refused
from producer.models import TaskState
from producer.sending.line_task import BadLine, LineTask, read_task, series_of
from producer.sending.lines import Line, read_lines, read_lines_at
from producer.sending.sent_note import MOST_REFUSED, SentNote
from producer.sending.source import Source
from producer.sending.windows import Window, windows

#: "The same again, a little later": nothing is wrong with the lines.
_TOO_MANY_REQUESTS = 429
#: Reasons that are remembered; of the others only that they were refused.
_MOST_REASONS = 10_000
_NO_REASON = "it was refused; send it alone to be told why"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that did not become a task."""

    number: int
    start: int
    code: str
    message: str


class FileSender:
    """One sending of one file. `note` says where to begin, `save` keeps each later one, `show` sees the refusals of
    each request. Afterwards `tasks` and `lines` count what was queued and read in all, also before this call, and
    `known` those that were sent now but had run, or begun to, by an earlier sending."""

    def __init__(
        self,
        client: GatewayClient,
        source: Source,
        algorithm: str | None,
        note: SentNote,
        save: Callable[[SentNote], None],
        show: Callable[["FileSender", list[Refusal]], None],
    ) -> None:
        self._client = client
        self._source = source
        self._algorithm = algorithm
        self._note = note
        self._save = save
        self._show = show
        self.series = series_of(note.digest, note.run)
        self.lines = note.line
        self.tasks = note.tasks
        self.known = 0
        self.refusals: dict[int, Refusal] = {}
        self._is_behind = False

    def run(self) -> None:
        """Sends what was not sent before. Raises GatewayUnreachable and Refused when it cannot go on now, and BadInput
        for a file that changes; called again with the last note, it goes on."""
        self._save(self._note)
        again = self._note.refused
        for window in windows(map(self._read, read_lines_at(self._source.file, again))):
            self._submit(window)
            self._keep(replace(self._note, refused=self._still_refused(window)))
        self._source.file.seek(self._note.offset)
        lines = read_lines(self._source.file, after=self._note.line, offset=self._note.offset)
        for window in windows(map(self._read, lines)):
            refusals = self._submit(window)
            last = window.last
            self.lines = self.lines if last is None else last.number
            self._advance(last, refusals)
        self.lines = self._source.total
        if not self._is_behind:
            self._keep(replace(self._note, line=self.lines, offset=self._source.size, is_complete=True))

    def read_all(self) -> Iterator[LineTask | BadLine]:
        """All lines once more, with the ids that they were sent with. Raises BadInput when these are no more they."""
        self._source.file.seek(0)
        for line in read_lines(self._source.file):
            yield self._read(line)
        self._source.check_unchanged()

    def _read(self, line: Line) -> LineTask | BadLine:
        return read_task(line, self._algorithm, self.series)

    def _submit(self, window: Window) -> list[Refusal]:
        self._source.check_unchanged()
        answers = self._answers(window) if window.tasks else []
        refusals = [_refusal(bad.line, bad.code, bad.message) for bad in window.bad]
        for task, answer in zip(window.tasks, answers, strict=True):
            if isinstance(answer, Refused):
                refusals.append(_refusal(task.line, answer.code, str(answer)))
            else:
                self.tasks += 1
                self.known += answer is not TaskState.QUEUED
                self._note = replace(self._note, last_id=task.id)
        refusals.sort(key=lambda refusal: refusal.number)
        for refusal in refusals:
            is_early = len(self.refusals) < _MOST_REASONS
            self.refusals[refusal.number] = refusal if is_early else replace(refusal, message=_NO_REASON)
        self._show(self, refusals)
        return refusals

    def _answers(self, window: Window) -> list[Refused | TaskState]:
        try:
            return self._client.submit_lines([task.body for task in window.tasks])
        except Refused as error:
            if len(window.tasks) > 1 or error.status >= 500 or error.status == _TOO_MANY_REQUESTS:
                raise
            return [error]

    def _advance(self, last: Line | None, refusals: list[Refusal]) -> None:
        """Beyond so many refused lines the note stays behind: what follows is sent again, which makes no task twice."""
        refused = (*self._note.refused, *((refusal.number, refusal.start) for refusal in refusals))
        self._is_behind = self._is_behind or len(refused) > MOST_REFUSED
        if last is not None and not self._is_behind:
            self._keep(replace(self._note, line=last.number, offset=last.end, refused=refused))

    def _still_refused(self, window: Window) -> tuple[tuple[int, int], ...]:
        tried = {task.line.number for task in window.tasks} | {bad.line.number for bad in window.bad}
        return tuple(place for place in self._note.refused if place[0] not in tried or place[0] in self.refusals)

    def _keep(self, note: SentNote) -> None:
        self._note = replace(note, tasks=self.tasks)
        self._save(self._note)


def _refusal(line: Line, code: str, message: str) -> Refusal:
    return Refusal(line.number, line.start, code, message)
