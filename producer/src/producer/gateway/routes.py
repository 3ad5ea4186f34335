"""The gateway's HTTP calls: read the request, ask the desk, write the answer. Policy lives elsewhere."""

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from producer.gateway import openapi, views
from producer.gateway.algorithm_views import AlgorithmInfo, AlgorithmList, Status, algorithm_infos, status
from producer.gateway.desk import Desk, Queued
from producer.gateway.prefer import wait_seconds
from producer.gateway.submission import Known, Refused
from runnerlib.contract import PROBLEM_MEDIA_TYPE, TaskState, is_task_id, near_names
from runnerlib.service.web import ProblemError
from taskqueue.protocols import TaskStore
from taskqueue.tasks import CancelAnswer, TaskRow

JSON = "application/json"
NDJSON = "application/x-ndjson"


class TaskRoutes:
    """``/tasks``: submit, look, cancel."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def router(self) -> APIRouter:
        router = APIRouter(tags=["tasks"])
        router.add_api_route(
            "/tasks",
            self.submit,
            methods=["POST"],
            summary="Queue a task",
            status_code=202,
            response_class=Response,
            responses={
                200: openapi.task("It has ended: the sender waited for it, or it was known before."),
                202: openapi.task("It is queued, durably. `Location` is its address."),
                **openapi.problems(400, 404, 409, 413, 415, 422, 503),
            },
            openapi_extra={
                "requestBody": openapi.ONE_MESSAGE,
                "parameters": [openapi.PREFER, openapi.IDEMPOTENCY_KEY],
            },
        )
        router.add_api_route(
            "/tasks/batch",
            self.submit_batch,
            methods=["POST"],
            summary="Queue up to 1,000 tasks",
            status_code=202,
            response_class=Response,
            responses={
                202: {
                    "model": list[openapi.BatchAnswer],
                    "description": "What became of each message, in order; one bad message does not stop the others.",
                },
                **openapi.problems(400, 413, 415, 422, 503),
            },
            openapi_extra={"requestBody": openapi.MANY_MESSAGES},
        )
        router.add_api_route(
            "/tasks/{task_id}",
            self.look,
            methods=["GET"],
            summary="A task and its result",
            response_class=Response,
            responses={200: openapi.task("The task as it is now."), **openapi.problems(404, 422, 503)},
            openapi_extra={"parameters": [openapi.TASK_ID, openapi.PREFER]},
        )
        router.add_api_route(
            "/tasks/{task_id}",
            self.cancel,
            methods=["DELETE"],
            summary="Cancel a task",
            response_class=Response,
            responses={
                200: openapi.task("It is cancelled and will never run."),
                202: openapi.task("It runs; its runner is being asked to stop."),
                **openapi.problems(409, 422, 503),
            },
            openapi_extra={"parameters": [openapi.TASK_ID]},
        )
        return router

    async def submit(self, request: Request) -> Response:
        """A message is accepted when it is durable; `state` tells how far it is. Send it with an `id` of your own
        (or an `Idempotency-Key`) and it can be sent again after any failure without running twice."""
        _require_type(request, JSON)
        spare_id = _spare_id(request.headers.get("idempotency-key"))
        outcome = await self._desk.submit(await request.body(), spare_id)
        if isinstance(outcome, Refused):
            return _problem(outcome)
        task_id = outcome.task.id if isinstance(outcome, Queued) else outcome.id
        headers = {"Location": f"/tasks/{task_id}"}
        seconds = wait_seconds(request.headers.get("prefer"))
        if seconds > 0 and not _has_ended(outcome):
            headers["Preference-Applied"] = f"wait={seconds:g}"
            outcome = await self._wait(task_id, seconds) or outcome
        body = (
            views.queued_bytes(outcome.task, outcome.at) if isinstance(outcome, Queued) else views.task_bytes(outcome)
        )
        return Response(body, 200 if _has_ended(outcome) else 202, headers, JSON)

    async def submit_batch(self, request: Request) -> Response:
        """A JSON array of messages, or one message on each line with the type `application/x-ndjson`."""
        kind = _require_type(request, JSON, NDJSON)
        outcome = await self._desk.submit_many(await request.body(), in_lines=kind == NDJSON)
        if isinstance(outcome, Refused):
            return _problem(outcome)
        return Response(views.batch_bytes(outcome), 202, media_type=JSON)

    async def look(self, request: Request) -> Response:
        """With `Prefer: wait=20` the answer comes as soon as the task has ended, or after 20 s."""
        task_id = _task_id(request)
        row = await self._desk.look(task_id, wait_seconds(request.headers.get("prefer")))
        if row is None:
            detail = f"There is no task {task_id!r}; tasks that ended long ago are dropped."
            raise ProblemError(404, "unknown_task", detail)
        return Response(views.task_bytes(row), media_type=JSON)

    async def cancel(self, request: Request) -> Response:
        """An id that nobody has seen yet is remembered: should its task arrive later, it will not run."""
        task_id = _task_id(request)
        outcome = await self._desk.cancel(task_id)
        row = outcome.row
        if row is None:
            raise ProblemError(404, "unknown_task", f"There is no task {task_id!r} any more.")
        if outcome.answer is CancelAnswer.FINISHED and row.state is not TaskState.CANCELLED:
            detail = f"The task {task_id!r} has ended already: it is {row.state.value}."
            body = views.problem_bytes(409, "already_finished", detail, id=task_id, state=row.state.value)
            return Response(body, 409, media_type=PROBLEM_MEDIA_TYPE)
        status_code = 202 if outcome.answer is CancelAnswer.REQUESTED else 200
        return Response(views.task_bytes(row), status_code, media_type=JSON)

    async def _wait(self, task_id: str, seconds: float) -> TaskRow | None:
        try:
            return await self._desk.look(task_id, seconds)
        except asyncio.CancelledError:
            # This process stops. The task is durable, so its sender gets the id and not an error.
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
            return None


class EnvironmentRoutes:
    """``/algorithms`` and ``/status``: what there is, and how it is doing."""

    def __init__(self, known: Known, store: TaskStore) -> None:
        self._known = known
        self._store = store

    def router(self) -> APIRouter:
        router = APIRouter(tags=["environment"])
        router.add_api_route(
            "/algorithms",
            self.algorithms,
            methods=["GET"],
            summary="Every algorithm",
            response_model=AlgorithmList,
            responses=openapi.problems(503),
        )
        router.add_api_route(
            "/algorithms/{name}",
            self.algorithm,
            methods=["GET"],
            summary="One algorithm",
            response_model=AlgorithmInfo,
            responses=openapi.problems(404, 503),
            openapi_extra={"parameters": [openapi.ALGORITHM]},
        )
        router.add_api_route(
            "/status",
            self.status,
            methods=["GET"],
            summary="The environment at a glance",
            response_model=Status,
            responses=openapi.problems(503),
        )
        return router

    async def algorithms(self) -> AlgorithmList:
        """Fields, example, limits, runners, and how many tasks wait and run."""
        infos = algorithm_infos(self._known.catalogue, await self._store.counts(), time.time())
        return AlgorithmList(algorithms=infos, complete=self._known.is_sure)

    async def algorithm(self, request: Request) -> AlgorithmInfo:
        name = str(request.path_params["name"])
        infos = algorithm_infos(self._known.catalogue, await self._store.counts(), time.time())
        for info in infos:
            if info.name == name:
                return info
        near = near_names(name[:100], [info.name for info in infos])
        advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /algorithms lists them."
        raise ProblemError(404, "unknown_algorithm", f"No runner ever offered {name[:100]!r}; {advice}")

    async def status(self) -> Status:
        """Runners, algorithms, tasks by state, and how long the oldest waits."""
        return status(self._known.catalogue, self._known.is_sure, await self._store.counts(), time.time())


def _has_ended(outcome: Queued | TaskRow) -> bool:
    return isinstance(outcome, TaskRow) and outcome.state.is_terminal


def _problem(refused: Refused) -> Response:
    status_code = views.STATUS_OF[refused.code]
    return Response(views.refusal_bytes(refused), status_code, media_type=PROBLEM_MEDIA_TYPE)


def _require_type(request: Request, *wanted: str) -> str:
    """A page in somebody's browser can send any other type here without asking; JSON it cannot."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given in wanted:
        return given
    detail = f"Send the body with the header 'Content-Type: {wanted[0]}'."
    raise ProblemError(415, "unsupported_media_type", detail)


def _task_id(request: Request) -> str:
    task_id = request.path_params["task_id"]
    if not is_task_id(task_id):
        raise ProblemError(422, "invalid_id", "A task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return str(task_id)


def _spare_id(header: Any) -> str | None:
    """The key may come in quotes (it is a structured header)."""
    if header is None:
        return None
    key = str(header).strip().strip('"')
    if not is_task_id(key):
        detail = "An Idempotency-Key serves as the task's id here: 1 to 128 of A-Z a-z 0-9 . _ : -"
        raise ProblemError(422, "invalid_id", detail)
    return key
