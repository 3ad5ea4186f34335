"""The HTTP contract: headers and statuses around :class:`runnerlib.reception.Reception`."""

import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from runnerlib import answers, openapi
from runnerlib.adapter.model import Adapter, Algorithm
from runnerlib.batch_body import MAX_ATTEMPT
from runnerlib.contract import (
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_DEADLINE,
    HEADER_TASK_ID,
    PROBLEM_MEDIA_TYPE,
    EntryState,
    FailureCode,
    Problem,
    RunError,
    is_task_id,
    new_task_id,
)
from runnerlib.reception import Reception
from runnerlib.refusals import (
    AlreadyFinished,
    Busy,
    Draining,
    IdConflict,
    Malformed,
    NotReady,
    Refusal,
    StaleAttempt,
    TooLarge,
    UnknownAlgorithm,
    UnknownTask,
)
from runnerlib.run_table import Run
from runnerlib.service.web import ProblemError
from runnerlib.waiter import Waiter

DEFAULT_WAIT_SECONDS = 20.0
#: Nobody waits longer in one call.
MAX_WAIT_SECONDS = 3600.0
_JSON = "application/json"

_wait = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6}(?:\.\d{1,6})?)", re.IGNORECASE)

_STATUS: dict[type[Refusal], int] = {
    Malformed: 400,
    UnknownAlgorithm: 404,
    UnknownTask: 404,
    AlreadyFinished: 409,
    IdConflict: 409,
    StaleAttempt: 409,
    TooLarge: 413,
    Busy: 429,
    Draining: 503,
    NotReady: 503,
}
#: Of a run that failed; everything else is 500. Not having been called in time is no fault of this side.
_STATUS_OF_FAILURE = {FailureCode.INVALID_PAYLOAD.value: 422, FailureCode.EXPIRED.value: 408}
_TITLES = {
    408: "Request Timeout",
    409: "Conflict",
    422: "Unprocessable Content",
    500: "Failed",
    503: "Service Unavailable",
}
_RETRY_AFTER: dict[type[Refusal], str] = {Busy: "0.05", Draining: "1", NotReady: "1"}

Endpoint = Callable[[Request], Awaitable[Response]]


def problem_of(refusal: Refusal) -> ProblemError:
    """A refusal over HTTP."""
    kind = type(refusal)
    headers = {"Retry-After": _RETRY_AFTER[kind]} if kind in _RETRY_AFTER else None
    return ProblemError(_STATUS[kind], refusal.code, str(refusal), headers)


def runner_routes(reception: Reception, adapter: Adapter, components: openapi.Components) -> APIRouter:
    """All routes; one typed ``/run`` for each algorithm."""
    router = APIRouter()
    for algorithm in adapter.algorithms.values():
        router.add_api_route(
            f"/run/{algorithm.name}",
            _run_endpoint(reception, algorithm.name),
            methods=["POST"],
            tags=["run"],
            operation_id=f"run_{algorithm.name}",
            name=f"run_{algorithm.name}",
            summary=algorithm.summary or algorithm.name,
            description=_description(algorithm),
            response_class=Response,
            openapi_extra=openapi.run_operation(algorithm, components),
        )
    router.add_api_route("/run/{algorithm}", _unknown(reception), methods=["POST"], include_in_schema=False)
    router.add_api_route(
        "/batch/{algorithm}",
        _batch_endpoint(reception),
        methods=["POST"],
        tags=["dispatch"],
        operation_id="batch",
        summary="Many runs of one algorithm, for controllers",
        response_class=Response,
        openapi_extra=openapi.batch_operation(adapter.algorithms, components),
    )
    _add_task_routes(router, reception, components)
    router.add_api_route(
        "/schemas",
        _schemas_endpoint(adapter),
        methods=["GET"],
        tags=["dispatch"],
        operation_id="schemas",
        summary="Every algorithm with its schemas, example and limits",
    )
    return router


def _add_task_routes(router: APIRouter, reception: Reception, components: openapi.Components) -> None:
    async def show(id: str) -> Response:
        try:
            return Response(reception.tell(reception.find(id), with_traceback=False), media_type=_JSON)
        except Refusal as refusal:
            raise problem_of(refusal) from None

    async def cancel(id: str) -> Response:
        try:
            run = reception.cancel(id)
        except Refusal as refusal:
            raise problem_of(refusal) from None
        return Response(reception.tell(run, with_traceback=False), status_code=202, media_type=_JSON)

    unknown = {"404": "`unknown_task`: this process has no such run."}
    router.add_api_route(
        "/tasks/{id}",
        show,
        methods=["GET"],
        tags=["dispatch"],
        operation_id="task",
        summary="One run",
        response_class=Response,
        openapi_extra=openapi.entry_operation(components, "200", unknown),
    )
    router.add_api_route(
        "/tasks/{id}",
        cancel,
        methods=["DELETE"],
        status_code=202,
        tags=["dispatch"],
        operation_id="cancel",
        summary="Cancel a run: it is asked to stop, and killed after a grace period",
        response_class=Response,
        openapi_extra=openapi.entry_operation(
            components, "202", {**unknown, "409": "`already_finished`: the run has ended."}
        ),
    )


def _run_endpoint(reception: Reception, name: str) -> Endpoint:
    async def run(request: Request) -> Response:
        headers = request.headers
        id, attempt = _task(headers.get(HEADER_TASK_ID), headers.get(HEADER_TASK_ATTEMPT))
        deadline = _seconds(headers.get(HEADER_TASK_DEADLINE), HEADER_TASK_DEADLINE)
        # Without an id nobody could ask again: such a caller waits to the end, unless it prefers otherwise.
        wait = _prefer_wait(headers.get("prefer"), DEFAULT_WAIT_SECONDS if HEADER_TASK_ID in headers else None)
        try:
            found = reception.submit(name, id, attempt, deadline, await request.body())
        except Refusal as refusal:
            raise problem_of(refusal) from None
        await Waiter([found]).wait(wait)
        return _run_answer(reception, found)

    return run


def _batch_endpoint(reception: Reception) -> Endpoint:
    async def batch(request: Request) -> Response:
        algorithm = str(request.path_params["algorithm"])
        try:
            body = await request.body()
            wait = _prefer_wait(request.headers.get("prefer"), DEFAULT_WAIT_SECONDS)
            answer = await reception.batch(algorithm, body, MAX_WAIT_SECONDS if wait is None else wait)
        except Refusal as refusal:
            raise problem_of(refusal) from None
        return Response(answer, media_type=_JSON)

    return batch


def _unknown(reception: Reception) -> Callable[[str], Awaitable[Response]]:
    async def unknown(algorithm: str) -> Response:
        try:
            reception.algorithm(algorithm)
        except Refusal as refusal:
            raise problem_of(refusal) from None
        raise AssertionError("a known algorithm has a route of its own")

    return unknown


def _schemas_endpoint(adapter: Adapter) -> Callable[[], Awaitable[list[dict[str, Any]]]]:
    described = [one.model_dump(mode="json") for one in adapter.describe()]

    async def schemas() -> list[dict[str, Any]]:
        return described

    return schemas


def _run_answer(reception: Reception, run: Run) -> Response:
    headers = {"Task-Id": run.id}
    outcome = run.outcome
    if outcome is None:
        headers["Location"] = f"/tasks/{run.id}"
        return Response(reception.tell(run), status_code=202, headers=headers, media_type=_JSON)
    reception.delivered(run)
    if outcome.result is not None:
        return Response(answers.result(outcome.result), headers=headers, media_type=_JSON)
    if outcome.error is not None:
        return _failure(outcome.error, headers)
    if outcome.state is EntryState.UNKNOWN:
        headers["Retry-After"] = _RETRY_AFTER[Draining]
        return _problem(503, Draining.code, "this runner gave the run up uncounted; send it again", headers)
    if outcome.state is EntryState.STALE_ATTEMPT:
        return _problem(409, StaleAttempt.code, "a later attempt of this task took its place", headers)
    return _problem(409, "cancelled", "the run was cancelled", headers)


def _failure(error: RunError, headers: dict[str, str]) -> Response:
    status = _STATUS_OF_FAILURE.get(error.code, 500)
    return _problem(status, error.code, error.message, headers, retryable=error.retryable, errors=error.errors)


def _problem(status: int, code: str, detail: str, headers: dict[str, str], **more: Any) -> Response:
    problem = Problem(title=_TITLES[status], status=status, code=code, detail=detail, **more)
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status_code=status, headers=headers, media_type=PROBLEM_MEDIA_TYPE)


def _description(algorithm: Algorithm) -> str:
    options = algorithm.options
    limits = f"Time limit of a call: {options.timeout_seconds:g} s. Result: at most {options.result_bytes} bytes."
    return f"{algorithm.description}\n\n{limits}".strip()


def _task(id: str | None, attempt: str | None) -> tuple[str, int]:
    if id is None:
        id = new_task_id()
    elif not is_task_id(id):
        raise ProblemError(400, Malformed.code, f"header {HEADER_TASK_ID} must be 1–128 of A-Z a-z 0-9 . _ : -")
    if attempt is None:
        return id, 1
    if not attempt.isascii() or not attempt.isdigit() or len(attempt) > 10 or not 1 <= int(attempt) < MAX_ATTEMPT:
        raise ProblemError(400, Malformed.code, f"header {HEADER_TASK_ATTEMPT} must be a whole number from 1")
    return id, int(attempt)


def _seconds(text: str | None, header: str) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ProblemError(400, Malformed.code, f"header {header} must be a number of seconds left")
    return seconds


def _prefer_wait(prefer: str | None, default: float | None) -> float | None:
    found = None if prefer is None else _wait.search(prefer)
    return default if found is None else min(MAX_WAIT_SECONDS, float(found[1]))
