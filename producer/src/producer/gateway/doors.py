"""The gateway's address while it starts: it tells why it is not ready, and asks senders to come again."""

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runnerlib.service.health import Health
from runnerlib.service.web import create_app, problem_response

_METHODS = ["GET", "POST", "PUT", "DELETE"]


class Doors:
    """An ASGI application that answers health at once, and everything after :meth:`open`."""

    def __init__(self, health: Health, registry: CollectorRegistry) -> None:
        starting = create_app("Plug & Play Workers: gateway", health=health, registry=registry)
        starting.add_api_route("/{path:path}", _not_yet, methods=_METHODS, include_in_schema=False)
        self._app: ASGIApp = starting

    def open(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _not_yet(_request: Request) -> Response:
    detail = "The gateway waits for its store; /healthz/ready tells why. Send the same again a little later."
    return problem_response(503, "starting", detail, {"Retry-After": "1"})
