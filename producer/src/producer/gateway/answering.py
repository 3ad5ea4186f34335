"""Answers to senders of tasks: waits for the end if they asked for it, and writes the task or the refusal."""

import asyncio

from starlette.responses import Response

from producer.gateway import views
from producer.gateway.desk import Desk, Queued
from producer.gateway.reading import JSON
from producer.gateway.submission import Refused
from runnerlib.contract import PROBLEM_MEDIA_TYPE
from taskqueue.tasks import TaskRow


class Answering:
    """Shared by the routes that answer with a task. `why` says why a task waits."""

    def __init__(self, desk: Desk, why: views.Why) -> None:
        self._desk = desk
        self.why = why

    def task(self, row: TaskRow, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return Response(views.task_bytes(row, self.why), status, headers, JSON)

    async def submitted(
        self, outcome: Queued | TaskRow | Refused, wait_seconds: float, *, is_asked: bool = True
    ) -> Response:
        """To whoever has just sent a task. `is_asked`: the sender itself said how long to wait."""
        if isinstance(outcome, Refused):
            return refusal(outcome)
        row = views.queued_row(outcome.task, outcome.at) if isinstance(outcome, Queued) else outcome
        headers = {"Location": f"/tasks/{row.id}"}
        if wait_seconds > 0 and not row.state.is_terminal:
            if is_asked:
                headers["Preference-Applied"] = f"wait={wait_seconds:g}"
            row = await self._wait(row.id, wait_seconds) or row
        return self.task(row, 200 if row.state.is_terminal else 202, headers)

    async def _wait(self, task_id: str, seconds: float) -> TaskRow | None:
        try:
            return await self._desk.look(task_id, seconds)
        except asyncio.CancelledError:
            # This process stops. The task is durable, so its sender gets the id and not an error.
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
            return None


def refusal(refused: Refused) -> Response:
    return Response(views.refusal_bytes(refused), views.code_of(refused).status, media_type=PROBLEM_MEDIA_TYPE)
