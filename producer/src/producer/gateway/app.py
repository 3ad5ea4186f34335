"""The gateway's HTTP application, made from its parts."""

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from producer.gateway.desk import Desk
from producer.gateway.routes import EnvironmentRoutes, TaskRoutes
from producer.gateway.submission import Known
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger
from runnerlib.service.web import BodyLimit, create_app, problem_response
from taskqueue.errors import StoreUnavailable, TaskQueueError
from taskqueue.protocols import TaskStore

log = get_logger(__name__)

#: When a sender should ask again after a 503.
RETRY_AFTER_SECONDS = 1
_ABOUT = "Send tasks, ask for their results, cancel them, and see what algorithms this environment has."


def create_gateway_app(
    desk: Desk, store: TaskStore, known: Known, max_message_bytes: int, health: Health, registry: CollectorRegistry
) -> FastAPI:
    """All of the gateway's calls on one application."""
    app = create_app("Plug & Play Workers: gateway", health=health, registry=registry, description=_ABOUT)
    app.include_router(TaskRoutes(desk).router())
    app.include_router(EnvironmentRoutes(known, store).router())
    app.add_exception_handler(TaskQueueError, _unavailable)
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
    code = "store_unavailable" if isinstance(error, StoreUnavailable) else "queue_unavailable"
    log.warning("a request met an unavailable queue or store", path=request.url.path, code=code, reason=str(error))
    detail = "The queue or the store cannot be reached now; send the same again, with the same id, a little later."
    return problem_response(503, code, detail, {"Retry-After": str(RETRY_AFTER_SECONDS)})


async def _sender_gone(request: Request, _error: Exception) -> Response:
    """The sender left before its message was here: nothing was accepted, and nobody reads this."""
    log.debug("a sender left before its message was here", path=request.url.path)
    return problem_response(400, "incomplete", "The message did not arrive wholly; send it again.")
