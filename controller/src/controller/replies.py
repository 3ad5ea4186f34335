"""Replies to senders that named a queue for them: built from what was committed, sent before the acknowledgement."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from controller.commit_gate import CommitGate
from controller.runs import Run
from runnerlib.contract import FailureCode, TaskState
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueUnavailable
from taskqueue.protocols import TaskQueue
from taskqueue.tasks import Cancelled, Conflicting, Delivery, Failed, Record, Reply, Succeeded, TaskRow

log = get_logger(__name__)

#: What a reply is made from: our own outcome, or the row of a task that had ended before.
ReplySource = tuple[Run, Record | TaskRow]
#: Replies that fail so often, each time just after another was accepted, are sent in halves; a single one is dropped.
TRIES = 2
#: Shows that the broker accepts replies. The broker drops it, since there is no such queue.
_PROBE = Reply("tasks-nobody", None, b"{}")
#: The broker does not accept it, or no message can carry it, e.g. a correlation id that was no text.
_NOT_SENT = (QueueUnavailable, ValueError)
#: Beside a result, a reply has ids, names and punctuation.
_FRAME_BYTES = 1024


class ReplySender:
    """Sends one reply for each delivery that asks for one. At least once: receivers recognise repetitions by the id."""

    def __init__(self, queue: TaskQueue, gate: CommitGate) -> None:
        self._queue = queue
        self._gate = gate
        self._bisecting = asyncio.Lock()

    async def send(self, sources: Iterable[ReplySource]) -> None:
        """Returns when the broker has accepted them; one that it never accepts is dropped."""
        replies = [reply for run, source in sources if wants_reply(run) for reply in replies_to(run, source)]
        if not replies:
            return
        try:
            await self._queue.reply(replies)
        except _NOT_SENT as error:
            log.warning("answers could not be sent; they are sent again", count=len(replies), reason=str(error))
            async with self._bisecting:
                await self._send_again(replies)

    async def _send_again(self, replies: Sequence[Reply]) -> None:
        """The broker is away, or one of these ends the connection whenever it is sent: an address may be anything."""
        for _ in range(TRIES):
            await self._gate.retry_until_available(
                "sending answers", lambda: self._queue.reply([_PROBE]), stops_intake=False
            )
            try:
                await self._queue.reply(replies)
            except _NOT_SENT as error:
                reason = str(error)
            else:
                return
        if len(replies) == 1:
            log.error("answer given up: the broker takes others", reply_to=replies[0].reply_to[:100], reason=reason)
            return
        middle = len(replies) // 2
        await self._send_again(replies[:middle])
        await self._send_again(replies[middle:])


def wants_reply(run: Run) -> bool:
    """Whether any of the run's senders wants a reply."""
    if run.delivery.reply_to is not None:
        return True
    return bool(run.repeated) and any(each.reply_to is not None for each in run.repeated)


def senders(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The first delivery, and those of the others whose reply goes elsewhere."""
    found = {(deliveries[0].reply_to, deliveries[0].correlation_id): deliveries[0]}
    for each in deliveries[1:]:
        if each.reply_to is not None:
            found.setdefault((each.reply_to, each.correlation_id), each)
    return list(found.values())


def replies_to(run: Run, source: Record | TaskRow) -> list[Reply]:
    """No replies when the task has not ended."""
    return [
        Reply(each.reply_to, each.correlation_id, body)
        for each in senders(run.deliveries)
        if each.reply_to is not None and (body := _body(each, source)) is not None
    ]


def _body(delivery: Delivery, source: Record | TaskRow) -> bytes | None:
    attempt = source.attempt if isinstance(source, TaskRow) else delivery.attempt
    match source:
        case Succeeded(result=result):
            state, outcome = TaskState.SUCCEEDED, _result(result)
        case TaskRow(state=TaskState.SUCCEEDED):
            state, outcome = TaskState.SUCCEEDED, _result(source.result or b"null")
        case Failed(code=code, message=message):
            state, outcome = TaskState.FAILED, _error(code, message)
        case Conflicting(message=message):
            state, outcome = TaskState.FAILED, _error(FailureCode.ID_CONFLICT, message)
        case TaskRow(state=TaskState.FAILED):
            code = source.error_code or FailureCode.HANDLER_ERROR
            state, outcome = TaskState.FAILED, _error(code, source.error_message or "")
        case Cancelled() | TaskRow(state=TaskState.CANCELLED):
            state, outcome = TaskState.CANCELLED, {}
        case _:
            return None
    fields = {"id": delivery.id, "algorithm": delivery.algorithm, "state": state.value, "attempt": attempt}
    return orjson.dumps(fields | outcome)


def _result(result: bytes) -> dict[str, Any]:
    """The result as it is stored, not read again. One that no message can hold has to be fetched from the gateway."""
    if len(result) > MAX_MESSAGE_BYTES - _FRAME_BYTES:
        message = f"the result has {len(result)} bytes, too many for a message; fetch it from the gateway by its id"
        return _error(FailureCode.TOO_LARGE, message)
    return {"result": orjson.Fragment(result)}


def _error(code: FailureCode, message: str) -> dict[str, Any]:
    return {"error": {"code": code.value, "message": message}}
