"""Whether the task of a dead letter can run again, and as what."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from runnerlib.contract import EnvelopeError, FailureCode, TaskState, parse_envelope
from taskqueue.tasks import DeadAnswer, DeadLetter, NewTask

#: Messages that can never become a task, and those whose id is another task's.
_NEVER = frozenset({FailureCode.MALFORMED, FailureCode.TOO_LARGE, FailureCode.ID_CONFLICT})
#: Dead letters that are replayed in one transaction: their messages are in memory at the same time.
MAX_REPLAYS = 32
#: The answer for a repeated id, by the answer for its first occurrence.
_REPEATED = MappingProxyType(
    {
        DeadAnswer.REPLAYED: DeadAnswer.ALREADY_REPLAYED,
        DeadAnswer.DISCARDED: DeadAnswer.ALREADY_DISCARDED,
    }
)


def decided(replayed_at: float | None, discarded_at: float | None) -> DeadAnswer | None:
    """What was decided on a dead letter before; None while it waits for a decision."""
    if replayed_at is not None:
        return DeadAnswer.ALREADY_REPLAYED
    return DeadAnswer.ALREADY_DISCARDED if discarded_at is not None else None


def task_of(letter: DeadLetter) -> NewTask | None:
    """The task that its message asks for, as the attempt after the last one that failed, without an expiry.

    Returns None if the message is not a task.
    """
    if letter.code in _NEVER:
        return None
    try:
        envelope = parse_envelope(letter.body, max_bytes=len(letter.body))
    except EnvelopeError:
        return None
    attempt = 1 + max((entry.attempt for entry in letter.history), default=0)
    return NewTask(
        letter.task_id,
        envelope.algorithm,
        envelope.payload,
        envelope.digest,
        attempt=attempt,
        group=envelope.group,
        submitted_by=letter.submitted_by,
    )


def objection(task: NewTask, *, digest: str, state: TaskState) -> DeadAnswer | None:
    """Why the row with the task's id keeps it from running again, if it does."""
    if digest and digest != task.digest:
        return DeadAnswer.NOT_REPLAYABLE
    return None if state is TaskState.FAILED else DeadAnswer.NOT_FAILED


async def in_portions(
    dead_ids: Sequence[int], size: int, decide: Callable[[list[int]], Awaitable[Mapping[int, DeadAnswer]]]
) -> list[DeadAnswer]:
    """Calls `decide` with up to `size` ids at a time, each id once; returns one answer for each of `dead_ids`."""
    unique = list(dict.fromkeys(dead_ids))
    answers: dict[int, DeadAnswer] = {}
    for start in range(0, len(unique), size):
        answers |= await decide(unique[start : start + size])
    seen: set[int] = set()
    found = []
    for dead_id in dead_ids:
        answer = answers[dead_id]
        found.append(_REPEATED.get(answer, answer) if dead_id in seen else answer)
        seen.add(dead_id)
    return found
