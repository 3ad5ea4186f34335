"""A gateway in a process of its own, on RabbitMQ and PostgreSQL. Any number of them work side by side."""

from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from producer.gateway.access import AccessGuard
from producer.gateway.build import RETRY_AFTER, TITLE, build
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.proxies import behind_proxies
from producer.gateway.settings import GatewaySettings
from producer.gateway.verifier import TokenVerifier
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.metrics import new_registry
from runnerlib.service.tls import client_trust
from runnerlib.service.web import create_app, problem_response
from taskqueue.opening import STORE, opened, opened_when_there
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue

_METHODS = ["GET", "POST", "PUT", "DELETE"]


class GatewayService:
    """What :func:`run_service` starts; :meth:`enter` returns when the store has been opened."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.server: HttpServer | None = None

    async def enter(self, stack: AsyncExitStack) -> None:
        """The server starts first, to say what the gateway waits for, and stops before what it uses is closed."""
        settings = self._settings
        health, registry = Health(STORE), new_registry()
        used = await stack.enter_async_context(AsyncExitStack())
        # It never consumes, so it needs none of the delay queues: controllers declare those.
        queue = open_rabbitmq(settings.queue, retry_steps_seconds=(), report=health.set)
        broker = await opened(used, queue)
        gate = StartupGate(health, registry, settings)
        app = behind_proxies(gate, settings.root_path, settings.proxies)
        self.server = await stack.enter_async_context(HttpServer.of(app, settings))
        store = await opened_when_there(used, lambda: open_postgres(settings.database_url), health.set)
        watch = await used.enter_async_context(
            CatalogueWatch(settings.discovery, settings.service_token, tls=client_trust(settings.ca_certificates_file))
        )
        gate.open(build(stack, settings, RecordedQueue(broker, store), store, watch, health, registry))


class StartupGate:
    """An ASGI application that answers only health checks and metrics until :meth:`open` is called."""

    def __init__(self, health: Health, registry: CollectorRegistry, settings: GatewaySettings) -> None:
        starting = create_app(TITLE, health=health, registry=registry)
        starting.add_api_route("/{path:path}", _starting, methods=_METHODS, include_in_schema=False)
        self._app: ASGIApp = starting
        if settings.has_tokens:
            verifier = TokenVerifier(None, settings.admin_token.get_secret_value())
            self._app = AccessGuard(starting, verifier, settings.metrics_token.get_secret_value(), _away)

    def open(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _away(request: Request, _error: Exception) -> Response:
    return await _starting(request)


async def _starting(_request: Request) -> Response:
    detail = "The gateway waits for its store; /healthz/ready tells why. Send the same again a little later."
    return problem_response(ProblemCode.STARTING.status, ProblemCode.STARTING.value, detail, RETRY_AFTER)
