"""``/dead``: list, show, replay and discard dead letters, the failed tasks that wait for a decision."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from producer.gateway import openapi
from producer.gateway.callers import audit_note, caller_of
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.query_params import DEAD_LETTER_CURSOR, MAX_DEAD_ID, DeadByFilter, DeadByIds, DeadQuery
from producer.gateway.request_parsing import JSON, KnownQueryRoute, body_of, problem, query_of
from producer.gateway.views import TaskResponder, iso_time
from runnerlib.contract import DeadLetterDetail, DeadLetterListView, DeadLettersDone
from taskqueue.protocols import Replayer, TaskStore
from taskqueue.tasks import DeadAnswer, DeadFilter, DeadLetter, DeadSummary
from taskqueue.tokens import AuditNote, Reach

#: Dead letters in one transaction: their messages, up to 16 MiB each, are in memory together.
_AT_ONCE = 50
#: More digits than any id has; converting more takes long.
_MAX_DIGITS = 30

#: What changed nothing, as problems.
_REFUSALS: dict[DeadAnswer, tuple[ProblemCode, str]] = {
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


#: As the audit calls them.
_ACTIONS = {DeadAnswer.REPLAYED: "replay", DeadAnswer.DISCARDED: "discard"}
#: What became of one dead letter: its id, and whether it has changed.
Answer = tuple[int, DeadAnswer]


class DeadLetterService:
    """Replays and discards, without HTTP. Every method may raise QueueUnavailable or StoreUnavailable.

    `wanted` is what the dead letters are to become: DeadAnswer.REPLAYED puts their tasks back into the queue,
    DeadAnswer.DISCARDED notes that nothing more will become of them.
    """

    def __init__(self, store: TaskStore, replayer: Replayer) -> None:
        self.store = store
        self._replayer = replayer

    async def change(self, wanted: DeadAnswer, dead_ids: Sequence[int], reach: Reach, note: AuditNote) -> list[Answer]:
        change = self._replayer.replay if wanted is DeadAnswer.REPLAYED else self.store.discard
        ids = list(dict.fromkeys(dead_ids))
        answers: list[Answer] = []
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            answers += zip(part, await change(part, reach=reach, note=note), strict=True)
        return answers

    async def change_page(
        self, wanted: DeadAnswer, which: DeadFilter, limit: int, before: int | None, note: AuditNote
    ) -> tuple[list[Answer], int | None]:
        """One page of those that fit, and where the next begins. The oldest task is replayed first."""
        page = await self.store.dead_letters(which, limit=limit, before=before)
        ids = [letter.dead_id for letter in page]
        ordered = ids[::-1] if wanted is DeadAnswer.REPLAYED else ids
        return await self.change(wanted, ordered, which.reach, note), page.next


class NumberedRoute(KnownQueryRoute):
    """Where a path has a dead letter's id, only digits match: words in its place belong to other paths."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        dead_id = child.get("path_params", {}).get("dead_id", "0")
        return (match, child) if dead_id.isascii() and dead_id.isdigit() else (Match.NONE, {})


router = APIRouter(tags=["dead letters"], route_class=NumberedRoute, default_response_class=Response)

_ONE = (ProblemCode.UNKNOWN_DEAD_LETTER, ProblemCode.INVALID_ID, ProblemCode.STORE_UNAVAILABLE)
_ID = {"parameters": [openapi.DEAD_ID]}
_MANY: dict[str, type[BaseModel]] = {"ids": DeadByIds, "filter": DeadByFilter}
_MANY_BODY = {"requestBody": openapi.one_of(DeadByIds, DeadByFilter)}
_MANY_RESPONSES: openapi.Responses = {
    200: openapi.answer(DeadLettersDone, "How many, and which were skipped. Go on with `next`."),
    **openapi.problems(*openapi.READING_A_BODY, ProblemCode.QUEUE_UNAVAILABLE, ProblemCode.STORE_UNAVAILABLE),
}


@router.get(
    "/dead",
    name="list",
    summary="Open dead letters, the newest first",
    responses={
        200: openapi.answer(DeadLetterListView, "A page. It may be short, even empty, while `next` is set."),
        **openapi.problems(ProblemCode.INVALID_REQUEST, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"parameters": openapi.query_parameters(DeadQuery)},
)
async def list_dead_letters(request: Request) -> Response:
    """All that fit the filter, without messages and tracebacks. Go on with `next` as `cursor` until it is null."""
    query = query_of(request, DeadQuery)
    wanted = replace(query.as_filter(), reach=caller_of(request).reads)
    page = await _service(request).store.dead_letters(wanted, limit=query.limit, before=query.cursor)
    letters = [_line(letter, letter.attempts) for letter in page]
    return _json({"dead_letters": letters, "next": DEAD_LETTER_CURSOR.write(page.next)})


@router.get(
    "/dead/{dead_id}",
    summary="One dead letter, with its message, history and traceback",
    responses={200: openapi.answer(DeadLetterDetail, "All of it."), **openapi.problems(*_ONE)},
    openapi_extra=_ID,
)
async def show(request: Request) -> Response:
    """The message as it came, every attempt that failed, and the traceback of the last one."""
    return _shown(await _letter(request))


@router.post(
    "/dead/replay", summary="Replay up to 1,000 dead letters", responses=_MANY_RESPONSES, openapi_extra=_MANY_BODY
)
async def replay_many(request: Request) -> Response:
    """Those with these `ids`, or one page of the open ones that fit a `filter` (`{}`: any)."""
    return await _change_many(request, DeadAnswer.REPLAYED)


@router.post(
    "/dead/discard", summary="Discard up to 1,000 dead letters", responses=_MANY_RESPONSES, openapi_extra=_MANY_BODY
)
async def discard_many(request: Request) -> Response:
    """Those with these `ids`, or one page of the open ones that fit a `filter` (`{}`: any)."""
    return await _change_many(request, DeadAnswer.DISCARDED)


@router.post(
    "/dead/{dead_id}/replay",
    summary="Put its task back into the queue",
    status_code=202,
    responses={
        202: openapi.task("It is queued again, durably, under its own id. `Location` is its address."),
        **openapi.problems(
            *_ONE,
            ProblemCode.OTHER_SITE,
            ProblemCode.ALREADY_REPLAYED,
            ProblemCode.ALREADY_DISCARDED,
            ProblemCode.NOT_REPLAYABLE,
            ProblemCode.NOT_FAILED,
            ProblemCode.QUEUE_UNAVAILABLE,
        ),
    },
    openapi_extra=_ID,
)
async def replay(request: Request) -> Response:
    """Its task runs again under its own id, with fresh retry budgets; `replays` counts it, attempts go on."""
    letter = await _change_one(request, DeadAnswer.REPLAYED)
    row = await _service(request).store.get(letter.task_id)
    if row is None:
        raise problem(ProblemCode.UNKNOWN_TASK, "It was replayed, but its task has been dropped since.")
    responder: TaskResponder = request.app.state.responder
    return responder.response(row, 202, {"Location": f"/tasks/{row.id}"})


@router.post(
    "/dead/{dead_id}/discard",
    summary="Note that nothing more will become of it",
    responses={
        200: openapi.answer(DeadLetterDetail, "It is discarded; it can still be read for some days."),
        **openapi.problems(*_ONE, ProblemCode.OTHER_SITE, ProblemCode.ALREADY_REPLAYED, ProblemCode.ALREADY_DISCARDED),
    },
    openapi_extra=_ID,
)
async def discard(request: Request) -> Response:
    """It is no longer listed as open, and is dropped with the finished tasks of its time."""
    return _shown(await _change_one(request, DeadAnswer.DISCARDED))


def _service(request: Request) -> DeadLetterService:
    service: DeadLetterService = request.app.state.dead_letters
    return service


async def _change_one(request: Request, wanted: DeadAnswer) -> DeadLetter:
    note = audit_note(request, _ACTIONS[wanted])
    [(dead_id, answer)] = await _service(request).change(wanted, [_dead_id(request)], caller_of(request).changes, note)
    if answer is not wanted:
        raise problem(*_refusal(dead_id, answer))
    return await _letter(request)


async def _change_many(request: Request, wanted: DeadAnswer) -> Response:
    which, service, reach = await body_of(request, _MANY), _service(request), caller_of(request).changes
    if isinstance(which, DeadByFilter):
        note = audit_note(request, _ACTIONS[wanted], filter=which.filter.model_dump(mode="json", exclude_unset=True))
        chosen = replace(which.filter.as_filter(), reach=reach)
        answers, after = await service.change_page(wanted, chosen, which.limit, which.cursor, note)
    else:
        assert isinstance(which, DeadByIds)
        note = audit_note(request, _ACTIONS[wanted])
        answers, after = await service.change(wanted, which.ids, reach, note), None
    skipped = []
    for dead_id, answer in answers:
        if answer is not wanted:
            code, detail = _refusal(dead_id, answer)
            skipped.append({"dead_id": dead_id, "code": code.value, "detail": detail})
    done = len(answers) - len(skipped)
    return _json({"done": done, "skipped": skipped, "next": DEAD_LETTER_CURSOR.write(after)})


async def _letter(request: Request) -> DeadLetter:
    dead_id = _dead_id(request)
    letter = await _service(request).store.dead_letter(dead_id)
    if letter is None or not caller_of(request).reads.includes(letter.submitted_by, letter.algorithm):
        raise problem(*_refusal(dead_id, DeadAnswer.UNKNOWN))
    return letter


def _dead_id(request: Request) -> int:
    dead_id = int(str(request.path_params["dead_id"])[:_MAX_DIGITS])
    if not 0 < dead_id <= MAX_DEAD_ID:
        raise problem(ProblemCode.INVALID_ID, f"The id of a dead letter is a number from 1 to {MAX_DEAD_ID}.")
    return dead_id


def _refusal(dead_id: int, answer: DeadAnswer) -> tuple[ProblemCode, str]:
    code, sentence = _REFUSALS[answer]
    return code, sentence.format(dead_id)


def _shown(letter: DeadLetter) -> Response:
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
    return _json(view)


def _line(letter: DeadSummary | DeadLetter, attempts: int) -> dict[str, object]:
    return {
        "dead_id": letter.dead_id,
        "task_id": letter.task_id,
        "algorithm": letter.algorithm,
        "code": letter.code,
        "message": letter.message,
        "attempts": attempts,
        "created_at": iso_time(letter.created_at),
        "replayed_at": iso_time(letter.replayed_at),
        "discarded_at": iso_time(letter.discarded_at),
    }


def _json(view: object) -> Response:
    """Headers of a message that did not come from us may hold values that JSON does not have."""
    body = orjson.dumps(view, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)
    return Response(body, media_type=JSON)
