"""The gateway's HTTP application, made from its parts."""

from collections.abc import Callable, Iterable

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from producer.gateway.document import Document
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.submission import Known
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger
from runnerlib.service.web import BodyLimit, ServiceApp, create_app, problem_response
from taskqueue.errors import StoreUnavailable, TaskQueueError

log = get_logger(__name__)

#: When a sender should ask again after a 503.
RETRY_AFTER_SECONDS = 1
_ABOUT = "Send tasks, ask for their results, cancel them, and see what algorithms this environment has."


def create_gateway_app(
    routers: Iterable[APIRouter],
    known: Known,
    max_message_bytes: int,
    health: Health,
    registry: CollectorRegistry,
    unavailable: Callable[[Exception], None],
) -> ServiceApp:
    """All of the gateway's calls on one application. `unavailable` is told what kept the queue or the store away."""

    async def refuse(request: Request, error: Exception) -> Response:
        unavailable(error)
        return await _unavailable(request, error)

    app = create_app("Plug & Play Workers: gateway", health=health, registry=registry, description=_ABOUT)
    for router in routers:
        app.include_router(router)
    app.document = Document(app.openapi, known).current
    app.add_exception_handler(TaskQueueError, refuse)
    app.add_exception_handler(ClientDisconnect, _sender_gone)
    app.add_middleware(BodyLimits, message_bytes=max_message_bytes)
    return app


class BodyLimits:
    """Refuses what is too large before it is in memory: a message by its own limit, a batch at 16 MiB."""

    def __init__(self, app: ASGIApp, message_bytes: int) -> None:
        self._message = BodyLimit(app, message_bytes)
        self._batch = BodyLimit(app, MAX_MESSAGE_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_batch = scope["type"] == "http" and scope["path"] == "/tasks/batch"
        await (self._batch if is_batch else self._message)(scope, receive, send)


async def _unavailable(request: Request, error: Exception) -> Response:
    """Never a 202 without durability. A publish that failed may still have arrived; the same id makes it one task."""
    code = ProblemCode.STORE_UNAVAILABLE if isinstance(error, StoreUnavailable) else ProblemCode.QUEUE_UNAVAILABLE
    path, reason = request.url.path, str(error)
    log.warning("a request met an unavailable queue or store", path=path, code=code.value, reason=reason)
    detail = f"Nothing can be taken or told now: {reason}. Send the same again, with the same id, a little later."
    return problem_response(code.status, code.value, detail, {"Retry-After": str(RETRY_AFTER_SECONDS)})


async def _sender_gone(request: Request, _error: Exception) -> Response:
    """The sender left before its message was here: nothing was accepted, and nobody reads this."""
    log.debug("a sender left before its message was here", path=request.url.path)
    code = ProblemCode.INCOMPLETE
    return problem_response(code.status, code.value, "The message did not arrive wholly; send it again.")
