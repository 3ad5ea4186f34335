"""The runner's HTTP application: routes, headers and statuses around :class:`runnerlib.run_manager.RunManager`."""

import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from prometheus_client import CollectorRegistry
from pydantic_core import from_json
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib import openapi
from runnerlib.adapter.model import Adapter, Algorithm
from runnerlib.contract import (
    HEADER_BOOT,
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_DEADLINE,
    HEADER_TASK_ID,
    EntryState,
    FailureCode,
    StrictJsonError,
    is_task_id,
    new_task_id,
    strict_json,
)
from runnerlib.contract.identity import run_token_of
from runnerlib.errors import Refusal, RefusalCode
from runnerlib.run_manager import RunManager, wait_until_ended
from runnerlib.run_registry import MAX_ATTEMPT, Run
from runnerlib.service.access import (
    COMMON_RULES,
    METRICS_PATH,
    OPEN,
    Peer,
    Role,
    RouteTable,
    SecretHash,
    guard_peers,
)
from runnerlib.service.body_budget import parsed
from runnerlib.service.health import Health
from runnerlib.service.web import BodyLimit, create_app, problem_response

DEFAULT_WAIT_SECONDS = 20.0
#: The largest message of the queue, and what an item of a batch has around it.
MAX_BODY_BYTES = 16 * 1024 * 1024 + 1024
#: Items in one batch; more than any `batch` option makes sense.
MAX_ITEMS = 4096
#: Bytes of a batch of several items. A single one may be as large as any body.
MAX_BATCH_BYTES = 4 * 1024 * 1024
#: The longest wait in one call.
MAX_WAIT_SECONDS = 3600.0
#: No deadline is farther away than thirty million years; NaN and infinities are no number of seconds either.
_MAX_DEADLINE_SECONDS = 1e15

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6}(?:\.\d{1,6})?)", re.IGNORECASE)
_JSON = "application/json"

_STATUS: dict[RefusalCode, int] = {
    "malformed": 400,
    "unknown_algorithm": 404,
    "unknown_task": 404,
    "already_finished": 409,
    "id_conflict": 409,
    "stale_attempt": 409,
    "too_large": 413,
    "busy": 429,
    "draining": 503,
    "not_ready": 503,
}
_RETRY_AFTER: dict[RefusalCode, str] = {"busy": "0.05", "draining": "1", "not_ready": "1"}
#: Of a run that failed; everything else is 500. A run that expired was not started in time, which is no server error.
_STATUS_OF_FAILURE = {FailureCode.INVALID_PAYLOAD.value: 422, FailureCode.EXPIRED.value: 408}
#: Titles that are not those of Python's HTTPStatus, which differ between its versions.
_TITLES = {422: "Unprocessable Content", 500: "Failed"}


_CALLER: frozenset[Role] = frozenset({Role.CALLER})
#: Who may call what where this runner has a token.
ROUTES = RouteTable(
    {
        **COMMON_RULES,
        ("GET", "/schemas"): OPEN,
        ("POST", "/run/{algorithm}"): _CALLER,
        ("POST", "/batch/{algorithm}"): _CALLER,
        ("GET", "/tasks/{id}"): _CALLER,
        ("DELETE", "/tasks/{id}"): _CALLER,
        ("GET", METRICS_PATH): frozenset({Role.CALLER, Role.METRICS}),
    }
)


def create_runner_app(
    name: str,
    boot: str,
    adapter: Adapter,
    manager: RunManager,
    health: Health,
    registry: CollectorRegistry,
    *,
    token: str = "",
    metrics_token: str = "",
) -> FastAPI:
    """Routes, docs, health, metrics, and the boot id on every answer. With the runner's `token`, it asks for others."""
    components = openapi.SchemaComponents()
    description = (adapter.module.__doc__ or "").strip().split("\n\n")[0]
    app = create_app(name, health=health, registry=registry, description=description)
    app.include_router(runner_routes(manager, adapter, components))
    app.add_exception_handler(Refusal, refusal_response)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    if token:
        expected = SecretHash(run_token_of(token))
        caller = Peer(Role.CALLER)
        guard_peers(app, ROUTES, lambda text: caller if expected.equals(text) else None, metrics_token)
    app.add_middleware(BootHeader, boot=boot)
    _add_schemas(app, components)
    return app


class BootHeader:
    """ASGI middleware: adds the id of this process to every answer."""

    def __init__(self, app: ASGIApp, boot: str) -> None:
        self._app = app
        self._header = (HEADER_BOOT.lower().encode(), boot.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._header]
            await send(message)

        await self._app(scope, receive, marked_send)


def _add_schemas(app: FastAPI, components: openapi.SchemaComponents) -> None:
    """Adds the schemas of the algorithms to the OpenAPI document, which is made once, when it is first asked for."""
    made = app.openapi

    def documented() -> dict[str, Any]:
        document = made()
        document.setdefault("components", {}).setdefault("schemas", {}).update(components.schemas)
        return document

    app.openapi = documented  # type: ignore[method-assign]


def runner_routes(manager: RunManager, adapter: Adapter, components: openapi.SchemaComponents) -> APIRouter:
    """All routes; one typed ``/run`` for each algorithm."""
    router = APIRouter()
    endpoints, algorithms = _Endpoints(manager, adapter), adapter.algorithms

    def add(
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        id: str,
        summary: str,
        operation: dict[str, Any],
        **more: Any,
    ) -> None:
        more = {"tags": ["dispatch"], "response_class": Response, "openapi_extra": operation, **more}
        router.add_api_route(path, endpoint, methods=[method], operation_id=id, summary=summary, **more)

    for name, algorithm in algorithms.items():
        id, summary, operation = f"run_{name}", algorithm.summary or name, openapi.run_operation(algorithm, components)
        more = {"name": id, "tags": ["run"], "description": _description(algorithm)}
        add("POST", f"/run/{name}", endpoints.run(name), id, summary, operation, **more)
    router.add_api_route("/run/{algorithm}", endpoints.unknown, methods=["POST"], include_in_schema=False)
    summary, operation = "Many runs of one algorithm, for controllers", openapi.batch_operation(algorithms, components)
    add("POST", "/batch/{algorithm}", endpoints.batch, "batch", summary, operation)
    unknown = {"404": "`unknown_task`: this process has no such run."}
    operation = openapi.entry_operation(components, "200", unknown)
    add("GET", "/tasks/{id}", endpoints.show, "task", "One run", operation)
    summary = "Cancel a run: it is asked to stop, and killed after a grace period"
    finished = {"409": "`already_finished`: the run has ended."}
    operation = openapi.entry_operation(components, "202", {**unknown, **finished})
    add("DELETE", "/tasks/{id}", endpoints.cancel, "cancel", summary, operation, status_code=202)
    router.add_api_route(
        "/schemas",
        endpoints.schemas,
        methods=["GET"],
        tags=["dispatch"],
        operation_id="schemas",
        summary="Every algorithm with its schemas, example and limits",
    )
    return router


class _Endpoints:
    """A Refusal that is raised in one is answered by :func:`refusal_response`."""

    def __init__(self, manager: RunManager, adapter: Adapter) -> None:
        self._manager = manager
        self._schemas = [one.model_dump(mode="json") for one in adapter.describe()]

    def run(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            headers = request.headers
            id, attempt = _read_task(headers.get(HEADER_TASK_ID), headers.get(HEADER_TASK_ATTEMPT))
            deadline = _read_deadline(headers.get(HEADER_TASK_DEADLINE))
            # Without an id the caller cannot ask again: it waits to the end, unless it prefers otherwise.
            wait = _read_wait(headers.get("prefer"), DEFAULT_WAIT_SECONDS if HEADER_TASK_ID in headers else None)
            found = await self._manager.submit(name, id, attempt, deadline, await request.body())
            await wait_until_ended([found], wait)
            return self._run_answer(found)

        return run

    async def unknown(self, algorithm: str) -> Response:
        self._manager.algorithm(algorithm)
        raise AssertionError("a known algorithm has a route of its own")

    async def batch(self, request: Request) -> Response:
        body = await request.body()
        wait = _read_wait(request.headers.get("prefer"), DEFAULT_WAIT_SECONDS)
        algorithm = self._manager.algorithm(str(request.path_params["algorithm"]))
        return Response(await self._manager.batch(algorithm, await parsed(body, _read_items), wait), media_type=_JSON)

    async def show(self, id: str) -> Response:
        return Response(self._manager.entry(self._manager.find(id), with_traceback=False), media_type=_JSON)

    async def cancel(self, id: str) -> Response:
        entry = self._manager.entry(self._manager.cancel(id), with_traceback=False)
        return Response(entry, status_code=202, media_type=_JSON)

    async def schemas(self) -> list[dict[str, Any]]:
        return self._schemas

    def _run_answer(self, run: Run) -> Response:
        headers = {"Task-Id": run.id}
        outcome = run.outcome
        if outcome is None:
            headers["Location"] = f"/tasks/{run.id}"
            return Response(self._manager.entry(run), status_code=202, headers=headers, media_type=_JSON)
        self._manager.delivered(run)
        if outcome.result is not None:
            return Response(b'{"result":' + outcome.result + b"}", headers=headers, media_type=_JSON)
        if (error := outcome.error) is not None:
            status = _STATUS_OF_FAILURE.get(error.code, 500)
            title, retryable = _TITLES.get(status), error.retryable
            return problem_response(
                status, error.code, error.message, headers, error.errors, title=title, retryable=retryable
            )
        if outcome.state is EntryState.UNKNOWN:
            headers["Retry-After"] = _RETRY_AFTER["draining"]
            return problem_response(503, "draining", "this runner gave the run up uncounted; send it again", headers)
        if outcome.state is EntryState.STALE_ATTEMPT:
            return problem_response(409, "stale_attempt", "a later attempt of this task took its place", headers)
        return problem_response(409, "cancelled", "the run was cancelled", headers)


async def refusal_response(_request: Request, error: Exception) -> Response:
    """The exception handler for refusals."""
    assert isinstance(error, Refusal)
    code = error.code
    headers = {"Retry-After": _RETRY_AFTER[code]} if code in _RETRY_AFTER else None
    return problem_response(_STATUS[code], code, str(error), headers)


def _description(algorithm: Algorithm) -> str:
    options = algorithm.options
    limits = f"Time limit of a call: {options.timeout_seconds:g} s. Result: at most {options.result_bytes} bytes."
    return f"{algorithm.description}\n\n{limits}".strip()


# what callers send


def _read_items(body: bytes) -> list[dict[str, Any]]:
    """The items of a batch. Raises Refusal.

    Not the strict parser: senders of batches have already checked each payload (docs/protocol.md), and strict reading
    costs as much per task as everything else here.
    """
    try:
        strict_json.check_values(body)
        items = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except StrictJsonError as error:
        raise Refusal("malformed", f"the body is {error}") from None
    except ValueError as error:
        raise Refusal("malformed", f"the body is not JSON: {error}") from None
    if not isinstance(items, list):
        raise Refusal("malformed", 'the body must be a list of {"id", "attempt", "deadline", "payload"}')
    if len(items) > MAX_ITEMS:
        raise Refusal("malformed", f"a batch has at most {MAX_ITEMS} items; send several")
    if len(items) > 1 and len(body) > MAX_BATCH_BYTES:
        raise Refusal("too_large", f"a batch of several has at most {MAX_BATCH_BYTES} bytes; send smaller ones")
    for position, item in enumerate(items):
        if not _is_item(item):
            raise Refusal(
                "malformed",
                f'item {position} must have "id" (1–128 of A-Z a-z 0-9 . _ : -), "attempt" (a whole number from 1) '
                'and, if any, "deadline" (seconds left)',
            )
    return items


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    attempt, deadline = item.get("attempt"), item.get("deadline")
    return (
        is_task_id(item.get("id"))
        and type(attempt) is int
        and 1 <= attempt < MAX_ATTEMPT
        and (
            deadline is None
            or (type(deadline) in (int, float) and -_MAX_DEADLINE_SECONDS < deadline < _MAX_DEADLINE_SECONDS)
        )
    )


def _read_task(id: str | None, attempt: str | None) -> tuple[str, int]:
    """Task id and attempt from their headers; a new id and 1 where they are missing. Raises Refusal."""
    if id is None:
        id = new_task_id()
    elif not is_task_id(id):
        raise Refusal("malformed", f"header {HEADER_TASK_ID} must be 1–128 of A-Z a-z 0-9 . _ : -")
    if attempt is None:
        return id, 1
    if not attempt.isascii() or not attempt.isdigit() or len(attempt) > 10 or not 1 <= int(attempt) < MAX_ATTEMPT:
        raise Refusal("malformed", f"header {HEADER_TASK_ATTEMPT} must be a whole number from 1")
    return id, int(attempt)


def _read_deadline(text: str | None) -> float | None:
    """Seconds left, from the header. Raises Refusal."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise Refusal("malformed", f"header {HEADER_TASK_DEADLINE} must be a number of seconds left")
    return seconds


def _read_wait(prefer: str | None, default: float | None) -> float | None:
    """Seconds of ``Prefer: wait=...``, at most :data:`MAX_WAIT_SECONDS`."""
    found = None if prefer is None else _WAIT.search(prefer)
    return default if found is None else min(MAX_WAIT_SECONDS, float(found[1]))
