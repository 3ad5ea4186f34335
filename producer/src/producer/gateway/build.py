"""Puts the gateway together, alone or beside the controller in one process."""

import asyncio
from contextlib import AsyncExitStack
from typing import Protocol

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from producer.gateway import algorithms, dead_letters, sessions, tasks, tokens
from producer.gateway import pauses as pausing
from producer.gateway.access import AccessGuard, Unavailable, with_security
from producer.gateway.admission import Admission, CatalogueView
from producer.gateway.callers import ANYBODY
from producer.gateway.metrics import GatewayMetrics
from producer.gateway.openapi import Document
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.settings import GatewaySettings
from producer.gateway.verifier import TokenVerifier
from producer.gateway.views import TaskResponder
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.service.health import Health
from runnerlib.service.lifecycle import background
from runnerlib.service.logs import get_logger
from runnerlib.service.web import BodyLimit, ServiceApp, create_app, problem_response
from taskqueue.errors import StoreUnavailable, TaskQueueError
from taskqueue.opening import STORE
from taskqueue.pauses import PauseWatch
from taskqueue.protocols import Replayer, TaskQueue, TaskStore, TokenStore
from taskqueue.recorded import RecordedQueue

log = get_logger(__name__)

PART = "gateway"
TITLE = "Plug & Play Workers: gateway"
_ABOUT = "Send tasks, ask for their results, cancel them, and see what algorithms this environment has."
#: In the order of the sections of ``/docs``.
_ROUTERS = (
    tasks.payload_router,
    tasks.router,
    dead_letters.router,
    algorithms.router,
    pausing.router,
    tokens.router,
    sessions.router,
)
#: When a sender should ask again after a 503.
RETRY_AFTER = {"Retry-After": "1"}
CHECK_STORE_SECONDS = 2.0
#: It need not exist: a check is one indexed look-up.
_ANY_ID = "-"


class GatewayQueue(TaskQueue, Replayer, Protocol):
    """A queue that failed tasks can be put back into."""


def build(
    stack: AsyncExitStack,
    settings: GatewaySettings,
    queue: GatewayQueue,
    store: TaskStore,
    watch: CatalogueView,
    health: Health,
    registry: CollectorRegistry,
) -> ASGIApp:
    """The application; serve it with ``HttpServer.of(app, settings)`` on the same stack.

    Queue, store and watch are open already and belong to the caller.
    """
    store_watch = StoreWatch(store, health)
    background(stack, store_watch.watch(), "store watch")
    # A broker's connection reports its own health; the embedded queue is the same file as the store.
    store_errors = StoreUnavailable if isinstance(queue, RecordedQueue) else TaskQueueError

    async def unavailable(request: Request, error: Exception) -> Response:
        if isinstance(error, store_errors):
            store_watch.refused(str(error))
        return _unavailable(request, error)

    app = create_app(TITLE, health=health, registry=registry, description=_ABOUT)
    admission = Admission(watch, settings.max_message_bytes)
    app.state.tasks = tasks.TaskService(queue, store, watch, admission, GatewayMetrics(registry))
    app.state.dead_letters = dead_letters.DeadLetterService(store, queue)
    pauses = app.state.pauses = _followed_pauses(stack, store)
    app.state.counts = algorithms.CountsCache(store)
    app.prefix, app.state.catalogue_view = settings.root_path, watch
    app.state.responder = TaskResponder(watch, pauses, settings.unknown_algorithm_grace_seconds)
    for router in _ROUTERS:
        app.include_router(router)
    app.document = Document(app.openapi, watch, with_security if settings.has_tokens else dict).current
    app.add_exception_handler(TaskQueueError, unavailable)
    app.add_middleware(BodyLimits, message_bytes=settings.max_message_bytes)
    _ask_for_tokens(app, settings, store.tokens, unavailable)
    health.set(PART, True)
    stack.callback(health.set, PART, False, "stopping")
    return app


def _followed_pauses(stack: AsyncExitStack, store: TaskStore) -> PauseWatch:
    pauses = PauseWatch(store)
    background(stack, pauses.watch(), "pauses")
    return pauses


def _ask_for_tokens(app: ServiceApp, settings: GatewaySettings, store: TokenStore, unavailable: Unavailable) -> None:
    """Puts the guard around all that was added before: who has no token learns nothing."""
    app.state.token_store = store
    app.state.attempts = sessions.Attempts()
    app.state.without_token = None if settings.has_tokens else ANYBODY
    if settings.has_tokens:
        if not settings.admin_token:
            log.info("tokens are in use, and there is no ADMIN_TOKEN: only those made before are valid")
        verifier = app.state.verifier = TokenVerifier(store, settings.admin_token.get_secret_value())
        app.add_middleware(
            AccessGuard,
            verifier=verifier,
            metrics_token=settings.metrics_token.get_secret_value(),
            unavailable=unavailable,
        )


class BodyLimits:
    """Refuses too large bodies before they are in memory: a batch at 16 MiB, others at the limit of one message."""

    def __init__(self, app: ASGIApp, message_bytes: int) -> None:
        self._message = BodyLimit(app, message_bytes)
        self._batch = BodyLimit(app, MAX_MESSAGE_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_batch = scope["type"] == "http" and scope["path"] == "/tasks/batch"
        await (self._batch if is_batch else self._message)(scope, receive, send)


class StoreWatch:
    """Keeps the part `store` of `health` up to date, so that senders are led to gateways whose store works.

    It sets it only when the store goes away or comes back.
    """

    def __init__(self, store: TaskStore, health: Health) -> None:
        self._store = store
        self._health = health
        self._is_away = False
        self._refused_write = False

    def refused(self, reason: str) -> None:
        """A request found the store unavailable. A full disk can still be read, so from now on writes are tried."""
        self._refused_write = True
        self._away(reason)

    async def watch(self) -> None:
        """Checks the store again and again, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_STORE_SECONDS)
            try:
                await (self._store.check_writing() if self._refused_write else self._store.get(_ANY_ID))
            except StoreUnavailable as error:
                self._away(str(error))
            else:
                self._back()

    def _away(self, reason: str) -> None:
        self._health.set(STORE, False, reason)
        if not self._is_away:
            log.warning("the store cannot serve; tasks are refused until it can", reason=reason)
        self._is_away = True

    def _back(self) -> None:
        if self._is_away:
            self._health.set(STORE, True)
            log.info("the store can serve again")
        self._is_away = self._refused_write = False


def _unavailable(request: Request, error: Exception) -> Response:
    """Never a 202 without durability. A publish that failed may still have arrived; the same id makes it one task."""
    code = ProblemCode.STORE_UNAVAILABLE if isinstance(error, StoreUnavailable) else ProblemCode.QUEUE_UNAVAILABLE
    path, reason = request.url.path, str(error)
    log.warning("a request met an unavailable queue or store", path=path, code=code.value, reason=reason)
    detail = f"Nothing can be taken or told now: {reason}. Send the same again, with the same id, a little later."
    return problem_response(code.status, code.value, detail, RETRY_AFTER)
