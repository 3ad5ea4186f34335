"""``/tasks``: submit, list, get and cancel tasks; and the calls of one algorithm, whose body is the payload alone."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from producer.gateway import openapi
from producer.gateway.admission import Admission, CatalogueView, Refused, conflict
from producer.gateway.callers import Caller, audit_note, caller_of
from producer.gateway.limits import RateLimits, WaitingLimits
from producer.gateway.metrics import GatewayMetrics
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.query_params import MAX_LOOKUP_IDS, SubmitQuery, TaskQuery, TasksByIds
from producer.gateway.request_parsing import (
    JSON,
    NDJSON,
    KnownQueryRoute,
    body_of,
    idempotency_key_of,
    problem,
    query_of,
    require_type,
    task_id_of,
    wait_seconds,
)
from producer.gateway.views import TaskResponder
from runnerlib.contract import PROBLEM_MEDIA_TYPE, Problem, TaskListView, TaskState
from runnerlib.service.body_budget import HUGE_BYTES, SMALL_BYTES, parsed
from runnerlib.service.web import ProblemError
from taskqueue.errors import StoreUnavailable
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import CancelAnswer, NewTask, Published, TaskRow
from taskqueue.tokens import Reach, fits

T = TypeVar("T")

#: Large bodies are parsed in so many threads at once, which share one interpreter with the loop.
_MAX_THREADS = 2
#: How long a call of `run` waits for the result unless the sender says otherwise.
RUN_WAIT_SECONDS = 20.0
#: Results have up to megabytes each; what does not fit is asked for again.
MAX_LOOKUP_BYTES = 8 * 1024 * 1024
#: Rows come with their payloads, too. So few are in memory together, unless the first ones show that these are small.
_FEW = 10
_SMALL_BYTES = 256 * 1024


class TaskService:
    """What the routes do with tasks, without HTTP. Every method may raise QueueUnavailable or StoreUnavailable."""

    def __init__(
        self, queue: TaskQueue, store: TaskStore, view: CatalogueView, admission: Admission, metrics: GatewayMetrics
    ) -> None:
        self.store = store
        self._rates = RateLimits()
        self._waiting = WaitingLimits(store, view)
        self._queue = queue
        self._view = view
        self._admission = admission
        self._metrics = metrics
        self._threads = asyncio.Semaphore(_MAX_THREADS)

    async def submit(
        self, caller: Caller, body: bytes, idempotency_key: str | None, wait_seconds: float = 0
    ) -> TaskRow | Refused:
        """Queues one message, and waits for its end up to `wait_seconds`. The task may be known already."""
        return await self._submit(
            caller, body, partial(self._admission.one, idempotency_key=idempotency_key), wait_seconds
        )

    async def submit_payload(
        self,
        caller: Caller,
        algorithm: str,
        body: bytes,
        idempotency_key: str | None,
        fields: Mapping[str, Any],
        wait_seconds: float = 0,
    ) -> TaskRow | Refused:
        """Queues a task whose payload is the whole body, as `submit` does; `fields` are the others of its message."""
        admit = partial(self._admission.payload, algorithm, idempotency_key=idempotency_key, fields=fields)
        return await self._submit(caller, body, admit, wait_seconds)

    async def _submit(
        self, caller: Caller, body: bytes, admit: Callable[..., NewTask | Refused], wait_seconds: float
    ) -> TaskRow | Refused:
        now = time.time()
        admitted = self._rates.take(caller, 1, len(body)) or _claimed(
            await self._parsed(body, partial(admit, now=now)), caller
        )
        if isinstance(admitted, Refused):
            self._count(admitted.algorithm, admitted.code.value)
            return admitted
        if admitted.not_before is not None and admitted.not_before >= now + wait_seconds:
            wait_seconds = 0  # it cannot end while its sender waits
        # An outcome is recorded durably: a task that ends while its sender waits need not be durable before.
        published = await self._publish(caller, [admitted], durable=wait_seconds <= 0)
        [outcome] = [published] if isinstance(published, Refused) else published
        if isinstance(outcome, Refused):
            return outcome
        row: TaskRow | None = None
        try:
            # Times are the store's, here as in every later answer.
            row = await self.get(admitted.id, wait_seconds, is_new=outcome is Published.ACCEPTED)
            if row is not None and row.state.is_terminal:
                return row
        except StoreUnavailable:
            if outcome is Published.DUPLICATE:
                raise
        except asyncio.CancelledError:
            # This process stops, so its sender gets the id and not an error.
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
        if wait_seconds > 0 or outcome is Published.DUPLICATE:
            await self._queue.flush()
        return row or _queued_row(admitted, now)  # it is durable, whatever has become of the store since

    async def submit_many(
        self, caller: Caller, body: bytes, *, in_lines: bool
    ) -> list[Refused | tuple[str, TaskState]] | Refused:
        """Queues a batch with one publish. Returns (id, state) or a refusal for each message, in order."""
        admit = partial(self._admission.batch, now=time.time(), in_lines=in_lines)
        # the bytes are looked at before they cost anything, the members can be counted afterwards only
        admitted: list[NewTask | Refused] | Refused | None = self._rates.refusal(caller, 0, len(body))
        if admitted is None:
            admitted = await self._parsed(body, admit, small_bytes=0)
        if not isinstance(admitted, Refused):
            admitted = self._rates.take(caller, len(admitted), len(body)) or admitted
        if isinstance(admitted, Refused):
            self._count(None, admitted.code.value)
            return admitted
        admitted = [_claimed(entry, caller) for entry in admitted]
        for entry in admitted:
            if isinstance(entry, Refused):
                self._count(entry.algorithm, entry.code.value)
        tasks = [entry for entry in admitted if isinstance(entry, NewTask)]
        outcomes = await self._publish(caller, tasks) if tasks else []
        if isinstance(outcomes, Refused):
            return outcomes
        published = list(zip(tasks, outcomes, strict=True))
        known = [task.id for task, outcome in published if outcome is Published.DUPLICATE]
        if known:
            await self._queue.flush()
        rows = await self.store.lookup(known) if known else {}
        queued = iter(
            outcome
            if isinstance(outcome, Refused)
            else (task.id, rows[task.id].state if task.id in rows else TaskState.QUEUED)
            for task, outcome in published
        )
        return [entry if isinstance(entry, Refused) else next(queued) for entry in admitted]

    async def get(self, task_id: str, wait_seconds: float = 0, *, is_new: bool = False) -> TaskRow | None:
        """The task; with `wait_seconds` as soon as it has ended, or after that long."""
        if wait_seconds <= 0:
            return await self.store.get(task_id)
        with self._metrics.waits.track_inprogress():
            return await self.store.wait_finished(task_id, wait_seconds, is_new=is_new)

    async def find(self, reach: Reach, task_id: str, wait_seconds: float) -> TaskRow | None:
        """As `get`; None for a task that is not in reach, and as late as if there were none."""
        ends_at = time.monotonic() + wait_seconds
        row = await self.get(task_id, wait_seconds)
        if row is None or reach.includes(row.submitted_by, row.algorithm):
            return row
        await asyncio.sleep(max(0.0, ends_at - time.monotonic()))
        return None

    async def _parsed(self, body: bytes, admit: Callable[[bytes], T], small_bytes: int = SMALL_BYTES) -> T:
        if not small_bytes < len(body) <= HUGE_BYTES:
            return await parsed(body, admit, small_bytes=small_bytes)
        async with self._threads:
            return await parsed(body, admit, small_bytes=small_bytes)

    async def _publish(
        self, caller: Caller, tasks: Sequence[NewTask], *, durable: bool = True
    ) -> list[Published | Refused] | Refused:
        """Refuses those whose id belongs to another task; or all, where too many would wait."""
        entries = self._waiting.entries(caller, tasks)
        too_many = await self._waiting.enter(entries) if entries else None
        if too_many is not None:
            self._count(too_many.algorithm, too_many.code.value)
            return too_many
        try:
            outcomes = await self._queue.publish(tasks, durable=durable)
        finally:
            self._waiting.leave(entries)
        published = zip(tasks, outcomes, strict=True)
        for (algorithm, outcome), count in Counter((task.algorithm, outcome) for task, outcome in published).items():
            code = ProblemCode.ID_CONFLICT if outcome is Published.CONFLICT else outcome
            self._count(algorithm, code.value, count)
        return [
            conflict(task) if outcome is Published.CONFLICT else outcome
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]

    def _count(self, algorithm: str | None, outcome: str, count: int = 1) -> None:
        catalogue = self._view.catalogue
        is_known = catalogue is not None and algorithm in catalogue.algorithms
        self._metrics.submitted(algorithm, outcome, is_known, count)


def _claimed(admitted: NewTask | Refused, caller: Caller) -> NewTask | Refused:
    """The task as the caller's own, or why the caller may not submit it."""
    if caller.key_id is None or isinstance(admitted, Refused):
        return admitted
    if fits(admitted.algorithm, caller.algorithms):
        return replace(admitted, submitted_by=caller.key_id)
    message = f"this token may not submit {admitted.algorithm!r}; it is limited to {', '.join(caller.algorithms)}"
    return Refused(ProblemCode.FORBIDDEN, message, admitted.algorithm, admitted.id)


def _queued_row(task: NewTask, now: float) -> TaskRow:
    """A task that was queued this moment, as the store will have it."""
    return TaskRow(
        *(task.id, task.algorithm, task.payload, task.digest, TaskState.QUEUED, 1, now, now),
        expires_at=task.expires_at,
        not_before=task.not_before,
        group=task.group,
    )


router = APIRouter(tags=["tasks"], route_class=KnownQueryRoute, default_response_class=Response)
#: The OpenAPI document shows both calls for each known algorithm, with its own fields.
payload_router = APIRouter(default_response_class=Response, include_in_schema=False)


@payload_router.post("/algorithms/{algorithm}/tasks")
async def queue(request: Request) -> Response:
    return await _submit_payload(request, 0)


@payload_router.post("/algorithms/{algorithm}/run")
async def run(request: Request) -> Response:
    return await _submit_payload(request, RUN_WAIT_SECONDS)


@router.post(
    "/tasks",
    summary="Queue a task",
    status_code=202,
    responses={**openapi.SUBMITTED, **openapi.problems(*openapi.SUBMITTING, ProblemCode.UNKNOWN_ALGORITHM)},
    openapi_extra={"requestBody": openapi.ONE_MESSAGE, "parameters": [openapi.PREFER, openapi.IDEMPOTENCY_KEY]},
)
async def submit(request: Request) -> Response:
    """A message is accepted when it is durable; `state` tells how far it is. Send it with an `id` of your own
    (or an `Idempotency-Key`) and it can be sent again after any failure without running twice."""
    require_type(request, JSON)
    key, seconds = idempotency_key_of(request), wait_seconds(request) or 0
    return _submitted(request, await _service(request).submit(caller_of(request), await request.body(), key, seconds))


@router.get(
    "/tasks",
    name="list",
    summary="Tasks, the newest first",
    responses={
        200: openapi.answer(TaskListView, "A page. It may be short, even empty, while `next` names another."),
        **openapi.problems(ProblemCode.INVALID_REQUEST, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"parameters": openapi.query_parameters(TaskQuery)},
)
async def list_tasks(request: Request) -> Response:
    """All that fit the filter, without payloads and results. Go on with `next` as `cursor` until it is null."""
    query = query_of(request, TaskQuery)
    wanted = replace(query.as_filter(), reach=caller_of(request).reads)
    page = await _service(request).store.list_tasks(wanted, limit=query.limit, before=query.cursor)
    return Response(_responder(request).page(page), media_type=JSON)


@router.post(
    "/tasks/batch",
    summary="Queue up to 1,000 tasks",
    status_code=202,
    responses={
        202: openapi.answer(
            list[openapi.BatchAnswer],
            "What became of each message, in order; one bad message does not stop the others.",
        ),
        **openapi.problems(*openapi.SUBMITTING_MANY),
    },
    openapi_extra={"requestBody": openapi.MANY_MESSAGES},
)
async def submit_batch(request: Request) -> Response:
    """A JSON array of messages, or one message on each line with the type `application/x-ndjson`."""
    kind = require_type(request, JSON, NDJSON)
    if idempotency_key_of(request) is not None:
        detail = "A batch takes no Idempotency-Key; give each of its messages an 'id'."
        raise problem(ProblemCode.INVALID_REQUEST, detail)
    outcome = await _service(request).submit_many(caller_of(request), await request.body(), in_lines=kind == NDJSON)
    if isinstance(outcome, Refused):
        return _refusal(outcome)
    entries = [
        {"id": entry.id, "problem": orjson.Fragment(_refusal(entry).body)}
        if isinstance(entry, Refused)
        else {"id": entry[0], "state": entry[1]}
        for entry in outcome
    ]
    return Response(orjson.dumps(entries), 202, media_type=JSON)


@router.get(
    "/tasks/{task_id}",
    summary="A task and its result",
    responses={
        200: openapi.task("The task as it is now."),
        **openapi.problems(ProblemCode.UNKNOWN_TASK, ProblemCode.INVALID_ID, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"parameters": [openapi.TASK_ID, openapi.PREFER]},
)
async def look(request: Request) -> Response:
    """With `Prefer: wait=20` the answer comes as soon as the task has ended, or after 20 s."""
    task_id = task_id_of(request)
    row = await _service(request).find(caller_of(request).reads, task_id, wait_seconds(request) or 0)
    if row is None:
        raise _unknown_task(task_id)
    return _responder(request).response(row)


@router.delete(
    "/tasks/{task_id}",
    summary="Cancel a task",
    responses={
        200: openapi.task("It is cancelled and will never run."),
        202: openapi.task("It runs; its runner is being asked to stop."),
        **openapi.problems(
            ProblemCode.UNKNOWN_TASK,
            ProblemCode.ALREADY_FINISHED,
            ProblemCode.INVALID_ID,
            ProblemCode.STORE_UNAVAILABLE,
        ),
    },
    openapi_extra={"parameters": [openapi.TASK_ID]},
)
async def cancel(request: Request) -> Response:
    """An id that nobody has seen yet is remembered: should its task arrive later, it will not run."""
    task_id = task_id_of(request)
    store = _service(request).store
    outcome = await store.cancel(task_id, reach=caller_of(request).changes, note=audit_note(request, "cancel"))
    row = None if outcome is CancelAnswer.UNKNOWN else await store.get(task_id)
    if row is None:
        raise _unknown_task(task_id)
    if outcome is CancelAnswer.FINISHED and row.state is not TaskState.CANCELLED:
        detail = f"The task {task_id!r} has ended already: it is {row.state.value}."
        return _problem(ProblemCode.ALREADY_FINISHED, detail, id=task_id, state=row.state.value)
    return _responder(request).response(row, 202 if outcome is CancelAnswer.REQUESTED else 200)


@router.post(
    "/tasks/lookup",
    summary=f"Up to {MAX_LOOKUP_IDS} tasks and their results",
    responses={
        200: openapi.answer(openapi.FoundTasks, "Those that are known, as they are now."),
        **openapi.problems(*openapi.READING_A_BODY, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"requestBody": openapi.one_of(TasksByIds)},
)
async def lookup(request: Request) -> Response:
    """To wait for many tasks: wait for one of them with `GET /tasks/{id}`, then ask for all here."""
    ids = list(dict.fromkeys((await body_of(request, {"ids": TasksByIds})).ids))
    store, responder, reach = _service(request).store, _responder(request), caller_of(request).reads
    found: list[bytes] = []
    left_out: list[str] = []
    size, step = 0, _FEW
    while ids and not left_out:
        part, ids = ids[:step], ids[step:]
        known = await store.lookup(part)
        rows = {row.id: row for row in known.values() if reach.includes(row.submitted_by, row.algorithm)}
        for row in (rows[task_id] for task_id in part if task_id in rows):
            task = responder.task(row) if size < MAX_LOOKUP_BYTES else b""
            if task and (not found or size + len(task) <= MAX_LOOKUP_BYTES):
                found.append(task)
                size += len(task)
            else:
                left_out.append(row.id)
        is_small = size + sum(len(row.payload) for row in rows.values()) <= _SMALL_BYTES
        step = MAX_LOOKUP_IDS if is_small else _FEW
    body = b'{"tasks":[' + b",".join(found) + b'],"left_out":' + orjson.dumps(left_out + ids) + b"}"
    return Response(body, media_type=JSON)


def _service(request: Request) -> TaskService:
    service: TaskService = request.app.state.tasks
    return service


def _responder(request: Request) -> TaskResponder:
    responder: TaskResponder = request.app.state.responder
    return responder


async def _submit_payload(request: Request, default_seconds: float) -> Response:
    require_type(request, JSON)
    key, asked = idempotency_key_of(request), wait_seconds(request)
    fields = query_of(request, SubmitQuery).model_dump()
    algorithm, seconds = str(request.path_params["algorithm"]), default_seconds if asked is None else asked
    caller, body = caller_of(request), await request.body()
    outcome = await _service(request).submit_payload(caller, algorithm, body, key, fields, seconds)
    return _submitted(request, outcome)


def _unknown_task(task_id: str) -> ProblemError:
    detail = f"There is no task {task_id!r}; tasks that ended long ago are dropped."
    return problem(ProblemCode.UNKNOWN_TASK, detail)


def _submitted(request: Request, outcome: TaskRow | Refused) -> Response:
    """The response to the sender of a task."""
    if isinstance(outcome, Refused):
        return _refusal(outcome)
    headers = {"Location": f"/tasks/{outcome.id}"}
    if seconds := wait_seconds(request):
        headers["Preference-Applied"] = f"wait={seconds:g}"
    return _responder(request).response(outcome, 200 if outcome.state.is_terminal else 202, headers)


def _refusal(refused: Refused) -> Response:
    """A refusal as a problem, with the message's id if it had one, and the wrong fields."""
    errors = [asdict(error) for error in refused.errors] or None
    response = _problem(refused.code, refused.message, id=refused.id, errors=errors, near=list(refused.near) or None)
    if refused.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(refused.retry_after_seconds)
    return response


def _problem(code: ProblemCode, detail: str, **more: Any) -> Response:
    """A problem (RFC 9457) with members of its own, such as `state`."""
    title = HTTPStatus(code.status).phrase
    body = Problem(title=title, status=code.status, code=code.value, detail=detail, **more)
    return Response(body.model_dump_json(exclude_none=True), code.status, media_type=PROBLEM_MEDIA_TYPE)
