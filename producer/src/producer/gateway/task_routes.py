"""``/tasks``: submit, list, look, cancel."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from producer.gateway import openapi, views
from producer.gateway.answering import Answering, refusal
from producer.gateway.desk import Desk
from producer.gateway.prefer import wait_seconds
from producer.gateway.problem_codes import ProblemCode, problem
from producer.gateway.reading import JSON, NDJSON, KnownQueryRoute, query_of, require_type, spare_id_of, task_id_of
from producer.gateway.submission import Refused
from producer.gateway.wanted import TaskQuery
from runnerlib.contract import PROBLEM_MEDIA_TYPE, TaskListView, TaskState
from taskqueue.tasks import CancelAnswer


class TaskRoutes:
    """Any task, whatever its algorithm."""

    def __init__(self, desk: Desk, answering: Answering) -> None:
        self._desk = desk
        self._answering = answering

    def router(self) -> APIRouter:
        router = APIRouter(tags=["tasks"], route_class=KnownQueryRoute, default_response_class=Response)
        router.add_api_route(
            "/tasks",
            self.submit,
            methods=["POST"],
            summary="Queue a task",
            status_code=202,
            responses={**openapi.SUBMITTED, **openapi.problems(*openapi.SUBMITTING, ProblemCode.UNKNOWN_ALGORITHM)},
            openapi_extra={
                "requestBody": openapi.ONE_MESSAGE,
                "parameters": [openapi.PREFER, openapi.IDEMPOTENCY_KEY],
            },
        )
        router.add_api_route(
            "/tasks",
            self.list,
            methods=["GET"],
            summary="Tasks, the newest first",
            responses={
                200: openapi.answer(TaskListView, "A page. It may be short, even empty, while `next` names another."),
                **openapi.problems(ProblemCode.INVALID_REQUEST, ProblemCode.STORE_UNAVAILABLE),
            },
            openapi_extra={"parameters": openapi.query_parameters(TaskQuery)},
        )
        router.add_api_route(
            "/tasks/batch",
            self.submit_batch,
            methods=["POST"],
            summary="Queue up to 1,000 tasks",
            status_code=202,
            responses={
                202: openapi.answer(
                    list[openapi.BatchAnswer],
                    "What became of each message, in order; one bad message does not stop the others.",
                ),
                **openapi.problems(
                    ProblemCode.MALFORMED,
                    ProblemCode.TOO_LARGE,
                    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
                    ProblemCode.INVALID_REQUEST,
                    ProblemCode.QUEUE_UNAVAILABLE,
                    ProblemCode.STORE_UNAVAILABLE,
                ),
            },
            openapi_extra={"requestBody": openapi.MANY_MESSAGES},
        )
        router.add_api_route(
            "/tasks/{task_id}",
            self.look,
            methods=["GET"],
            summary="A task and its result",
            responses={
                200: openapi.task("The task as it is now."),
                **openapi.problems(ProblemCode.UNKNOWN_TASK, ProblemCode.INVALID_ID, ProblemCode.STORE_UNAVAILABLE),
            },
            openapi_extra={"parameters": [openapi.TASK_ID, openapi.PREFER]},
        )
        router.add_api_route(
            "/tasks/{task_id}",
            self.cancel,
            methods=["DELETE"],
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
        return router

    async def submit(self, request: Request) -> Response:
        """A message is accepted when it is durable; `state` tells how far it is. Send it with an `id` of your own
        (or an `Idempotency-Key`) and it can be sent again after any failure without running twice."""
        require_type(request, JSON)
        spare_id = spare_id_of(request)
        outcome = await self._desk.submit(await request.body(), spare_id)
        return await self._answering.submitted(outcome, wait_seconds(request.headers.get("prefer")))

    async def submit_batch(self, request: Request) -> Response:
        """A JSON array of messages, or one message on each line with the type `application/x-ndjson`."""
        kind = require_type(request, JSON, NDJSON)
        if spare_id_of(request) is not None:
            detail = "A batch takes no Idempotency-Key; give each of its messages an 'id'."
            raise problem(ProblemCode.INVALID_REQUEST, detail)
        outcome = await self._desk.submit_many(await request.body(), in_lines=kind == NDJSON)
        if isinstance(outcome, Refused):
            return refusal(outcome)
        return Response(views.batch_bytes(outcome), 202, media_type=JSON)

    async def list(self, request: Request) -> Response:
        """All that fit the filter, without payloads and results. Go on with `next` as `cursor` until it is null."""
        query = query_of(request, TaskQuery)
        page = await self._desk.page(query.as_filter(), query.limit, query.cursor)
        return Response(views.tasks_bytes(page, self._answering.why), media_type=JSON)

    async def look(self, request: Request) -> Response:
        """With `Prefer: wait=20` the answer comes as soon as the task has ended, or after 20 s."""
        task_id = task_id_of(request)
        row = await self._desk.look(task_id, wait_seconds(request.headers.get("prefer")))
        if row is None:
            detail = f"There is no task {task_id!r}; tasks that ended long ago are dropped."
            raise problem(ProblemCode.UNKNOWN_TASK, detail)
        return self._answering.task(row)

    async def cancel(self, request: Request) -> Response:
        """An id that nobody has seen yet is remembered: should its task arrive later, it will not run."""
        task_id = task_id_of(request)
        outcome = await self._desk.cancel(task_id)
        row = outcome.row
        if row is None:
            raise problem(ProblemCode.UNKNOWN_TASK, f"There is no task {task_id!r} any more.")
        if outcome.answer is CancelAnswer.FINISHED and row.state is not TaskState.CANCELLED:
            detail = f"The task {task_id!r} has ended already: it is {row.state.value}."
            code = ProblemCode.ALREADY_FINISHED
            body = views.problem_bytes(code, detail, id=task_id, state=row.state.value)
            return Response(body, code.status, media_type=PROBLEM_MEDIA_TYPE)
        return self._answering.task(row, 202 if outcome.answer is CancelAnswer.REQUESTED else 200)
