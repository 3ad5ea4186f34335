"""Dead letters as bytes for the wire."""

import base64

import orjson

from producer.gateway.cursors import DEAD_LETTERS
from producer.gateway.dead_desk import Changed
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.views import iso_time
from taskqueue.tasks import DeadAnswer, DeadLetter, DeadSummary, Page

#: Answers that changed nothing, as problems.
REFUSALS: dict[DeadAnswer, tuple[ProblemCode, str]] = {
    DeadAnswer.UNKNOWN: (
        ProblemCode.UNKNOWN_DEAD_LETTER,
        "There is no dead letter {}; GET /dead lists those that are open.",
    ),
    DeadAnswer.ALREADY_REPLAYED: (
        ProblemCode.ALREADY_REPLAYED,
        "Dead letter {} was replayed before; should its task have failed again, that has a dead letter of its own.",
    ),
    DeadAnswer.ALREADY_DISCARDED: (
        ProblemCode.ALREADY_DISCARDED,
        "Dead letter {} was discarded before; send its message again, as a new task, if it is to run after all.",
    ),
    DeadAnswer.NOT_REPLAYABLE: (
        ProblemCode.NOT_REPLAYABLE,
        "Dead letter {} can never become a task that runs: its message is no task, is too large, or has the id of "
        "another one. Send it again, corrected, and discard this.",
    ),
    DeadAnswer.NOT_FAILED: (
        ProblemCode.NOT_FAILED,
        "The task of dead letter {} is no longer failed: it waits, runs, or has ended since. Look at the task.",
    ),
}


def refusal_of(dead_id: int, answer: DeadAnswer) -> tuple[ProblemCode, str]:
    """Code and sentence of an answer that changed nothing."""
    code, sentence = REFUSALS[answer]
    return code, sentence.format(dead_id)


def page_bytes(page: Page[DeadSummary]) -> bytes:
    """A page of the list, in the shape of the contract's DeadLetterListView."""
    return _dumps({"dead_letters": [_line(letter) for letter in page], "next": _next(page.next)})


def letter_bytes(letter: DeadLetter) -> bytes:
    """One dead letter, in the shape of the contract's DeadLetterDetail."""
    try:
        text = letter.body.decode()
    except UnicodeDecodeError:
        text = None
    view = {
        **_line(letter, len(letter.history)),
        "history": [entry.model_dump(mode="json") for entry in letter.history],
        "traceback": letter.traceback,
        "headers": letter.headers,
        "body": text,
        "body_base64": base64.b64encode(letter.body).decode(),
    }
    return _dumps(view)


def changed_bytes(changed: Changed, wanted: DeadAnswer) -> bytes:
    """What became of many, in the shape of the contract's DeadLettersDone."""
    skipped = []
    for dead_id, answer in changed.answers:
        if answer is not wanted:
            code, detail = refusal_of(dead_id, answer)
            skipped.append({"dead_id": dead_id, "code": code.value, "detail": detail})
    done = len(changed.answers) - len(skipped)
    return _dumps({"done": done, "skipped": skipped, "next": _next(changed.next)})


def _line(letter: DeadSummary | DeadLetter, attempts: int | None = None) -> dict[str, object]:
    return {
        "dead_id": letter.dead_id,
        "task_id": letter.task_id,
        "algorithm": letter.algorithm,
        "code": letter.code,
        "message": letter.message,
        "attempts": letter.attempts if isinstance(letter, DeadSummary) else attempts,
        "created_at": iso_time(letter.created_at),
        "replayed_at": iso_time(letter.replayed_at),
        "discarded_at": iso_time(letter.discarded_at),
    }


def _next(place: int | None) -> str | None:
    return None if place is None else DEAD_LETTERS.write(place)


def _dumps(view: object) -> bytes:
    """Headers of a stranger's message may hold what JSON has no word for."""
    return orjson.dumps(view, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)
