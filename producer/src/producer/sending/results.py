"""What became of each line, in the order of the lines."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from producer.client.calls import LOOKUP_SIZE
from producer.client.client import GatewayClient
from producer.models import TaskState, TaskView
from producer.sending.line_task import BadLine, LineTask
from producer.sending.send import Refusal
from producer.task_sentences import outcome

#: What becomes of a line, beside the states of tasks.
REFUSED, UNKNOWN = "refused", "unknown"


class LineResults:
    """``for entry in LineResults(...)``: ``{"line", "id", "state", "result" or "error"}`` for each line.

    `counts` tells how many there are of each state, as far as it has come. When the time is over, it waits no more
    and tells the others as they are.
    """

    def __init__(
        self,
        client: GatewayClient,
        lines: Iterable[LineTask | BadLine],
        refusals: dict[int, Refusal],
        end: float,
        show: Callable[["LineResults", TaskView | None], None],
    ) -> None:
        self._client = client
        self._lines = lines
        self._refusals = refusals
        self._end = end
        self._show = show
        self.counts: Counter[str] = Counter()

    @property
    def unfinished(self) -> int:
        """Tasks that have not ended."""
        return sum(self.counts[state.value] for state in TaskState if not state.is_terminal)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        lines = iter(self._lines)
        while part := list(islice(lines, LOOKUP_SIZE)):
            ids = [read.id for read in part if isinstance(read, LineTask) and read.line.number not in self._refusals]
            views = self._client.wait_for_part(ids, self._end, lambda view: self._show(self, view))
            for read in part:
                entry = self._entry(read, views)
                self.counts[entry["state"]] += 1
                yield entry
            self._show(self, None)

    def _entry(self, read: LineTask | BadLine, views: dict[str, TaskView]) -> dict[str, Any]:
        number = read.line.number
        if isinstance(read, BadLine):
            return _problem(number, None, REFUSED, read.code, read.message)
        if refusal := self._refusals.get(number):
            return _problem(number, read.id, REFUSED, refusal.code, refusal.message)
        view = views.get(read.id)
        if view is None:
            message = "the gateway does not know this task any more; tasks that ended long ago are dropped"
            return _problem(number, read.id, UNKNOWN, "unknown_task", message)
        return {"line": number, **outcome(view)}


def _problem(number: int, task_id: str | None, state: str, code: str, message: str) -> dict[str, Any]:
    return {"line": number, "id": task_id, "state": state, "error": {"code": code, "message": message}}
