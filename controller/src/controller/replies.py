"""Answers to senders that named a queue for them: built from what was committed, sent before the acknowledgement."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from controller.runs import Run
from controller.store_gate import StoreGate
from runnerlib.contract import FailureCode, TaskState
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueUnavailable
from taskqueue.protocols import TaskQueue
from taskqueue.tasks import Cancelled, Conflicting, Delivery, Failed, Record, Reply, Succeeded, TaskRow

log = get_logger(__name__)

#: What decides on the answer: our own outcome, or the row of a task that had ended before.
ReplySource = tuple[Run, Record | TaskRow]
#: Answers that fail so often, each time just after another was taken, are sent in halves; one alone is given up.
TRIES = 2
#: Shows that the broker takes answers, and is dropped by it: there is no such queue.
_TO_NOBODY = Reply("tasks-nobody", None, b"{}")
#: By the broker, or because no message can carry it, e.g. a correlation id that was no text.
_NOT_TAKEN = (QueueUnavailable, ValueError)
#: Beside a result an answer has ids, names and punctuation.
_FRAME_BYTES = 1024


class ReplySender:
    """Sends one answer for each delivery that asks for one. At least once: receivers tell repetitions by the id."""

    def __init__(self, queue: TaskQueue, gate: StoreGate) -> None:
        self._queue = queue
        self._gate = gate
        self._suspecting = asyncio.Lock()

    async def answer(self, told: Iterable[ReplySource]) -> None:
        """Returns when the broker has them; one that it never takes is given up."""
        replies = [reply for run, source in told if asks(run) for reply in replies_to(run, source)]
        if not replies:
            return
        try:
            await self._queue.reply(replies)
        except _NOT_TAKEN as error:
            log.warning("answers could not be sent; they are sent again", count=len(replies), reason=str(error))
            async with self._suspecting:
                await self._send_again(replies)

    async def _send_again(self, replies: Sequence[Reply]) -> None:
        """The broker is away, or one of these ends the connection whenever it is sent: an address may be anything."""
        for _ in range(TRIES):
            await self._gate.retry_until_available(
                "sending answers", lambda: self._queue.reply([_TO_NOBODY]), stops_intake=False
            )
            try:
                await self._queue.reply(replies)
            except _NOT_TAKEN as error:
                reason = str(error)
            else:
                return
        if len(replies) == 1:
            log.error("answer given up: the broker takes others", reply_to=replies[0].reply_to[:100], reason=reason)
            return
        middle = len(replies) // 2
        await self._send_again(replies[:middle])
        await self._send_again(replies[middle:])


def asks(run: Run) -> bool:
    """Whether anybody wants an answer for this run."""
    return run.delivery.reply_to is not None or any(each.reply_to is not None for each in run.repeated)


def senders(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The first delivery, and those of the others that another answer goes to."""
    found = {(deliveries[0].reply_to, deliveries[0].correlation_id): deliveries[0]}
    for each in deliveries[1:]:
        if each.reply_to is not None:
            found.setdefault((each.reply_to, each.correlation_id), each)
    return list(found.values())


def replies_to(run: Run, source: Record | TaskRow) -> list[Reply]:
    """None when the task has not ended."""
    return [
        Reply(each.reply_to, each.correlation_id, body)
        for each in senders(run.deliveries)
        if each.reply_to is not None and (body := _body(each, source)) is not None
    ]


def _body(delivery: Delivery, source: Record | TaskRow) -> bytes | None:
    match source:
        case Succeeded(result=result):
            return _succeeded(delivery, delivery.attempt, result)
        case Failed(code=code, message=message):
            return _ended(delivery, TaskState.FAILED, delivery.attempt, error=_error(code, message))
        case Conflicting(message=message):
            error = _error(FailureCode.ID_CONFLICT, message)
            return _ended(delivery, TaskState.FAILED, delivery.attempt, error=error)
        case Cancelled():
            return _ended(delivery, TaskState.CANCELLED, delivery.attempt)
        case TaskRow(state=TaskState.SUCCEEDED):
            return _succeeded(delivery, source.attempt, source.result or b"null")
        case TaskRow(state=TaskState.FAILED):
            error = _error(source.error_code or FailureCode.HANDLER_ERROR, source.error_message or "")
            return _ended(delivery, TaskState.FAILED, source.attempt, error=error)
        case TaskRow(state=TaskState.CANCELLED):
            return _ended(delivery, TaskState.CANCELLED, source.attempt)
        case _:
            return None


def _succeeded(delivery: Delivery, attempt: int, result: bytes) -> bytes:
    """The result as it is stored, not read again. One that no message can hold is left to the gateway."""
    if len(result) > MAX_MESSAGE_BYTES - _FRAME_BYTES:
        message = f"the result has {len(result)} bytes, too many for a message; fetch it from the gateway by its id"
        error = _error(FailureCode.TOO_LARGE, message)
        return _ended(delivery, TaskState.SUCCEEDED, attempt, error=error)
    return _ended(delivery, TaskState.SUCCEEDED, attempt, result=orjson.Fragment(result))


def _ended(delivery: Delivery, state: TaskState, attempt: int, **outcome: Any) -> bytes:
    fields = {"id": delivery.id, "algorithm": delivery.algorithm, "state": state.value, "attempt": attempt}
    return orjson.dumps(fields | outcome)


def _error(code: FailureCode, message: str) -> dict[str, str]:
    return {"code": code.value, "message": message}
