"""The HTTP application that every service starts from: documentation, health, metrics, problems."""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib import __version__
from runnerlib.contract import PROBLEM_MEDIA_TYPE, Problem
from runnerlib.service.health import Health
from runnerlib.service.metrics import new_registry
from runnerlib.service.problems import BodyLimit, PlainBody, ProblemError, add_problem_handlers, problem_response

__all__ = ["BodyLimit", "ProblemError", "ServiceApp", "create_app", "new_registry", "problem_response"]

_DOCUMENT_PATH = "/openapi.json"
_HEALTH = "health"
_PROBLEM_REFERENCE = "#/components/schemas/Problem"
#: Of an answer in the OpenAPI document.
PROBLEM_CONTENT = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _PROBLEM_REFERENCE}}}
_DEFAULT_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "A problem: what is wrong, and what to do.", "content": PROBLEM_CONTENT}
}


class ServiceApp(FastAPI):
    """FastAPI whose OpenAPI document has our errors instead of the framework's.

    `document` gives it as JSON; a service whose document changes sets another one. `prefix` is the path under which a
    proxy has the service.
    """

    prefix = ""

    def setup(self) -> None:
        self.document: Callable[[], Awaitable[bytes]] = self._unchanging_document
        self.add_route(_DOCUMENT_PATH, self._show_document, include_in_schema=False)

    async def _show_document(self, _request: Request) -> Response:
        headers = {"Cache-Control": "no-cache"}
        return Response(await self.document(), headers=headers, media_type="application/json")

    async def _unchanging_document(self) -> bytes:
        return bytes(JSONResponse(self.openapi()).body)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            if self.prefix:
                document["servers"] = [{"url": self.prefix}]
            document["tags"] = [{"name": tag} for tag in _tags(document)]
        assert self.openapi_schema is not None
        return self.openapi_schema


def _tags(document: dict[str, Any]) -> list[str]:
    """The order of the sections in ``/docs``: what the service is for comes first, its health last."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    tags = dict.fromkeys(tag for operation in operations for tag in operation.get("tags", ()))
    return sorted(tags, key=lambda tag: tag == _HEALTH)


def create_app(
    title: str,
    *,
    health: Health,
    registry: CollectorRegistry | None = None,
    description: str = "",
) -> ServiceApp:
    """An application with ``/docs``, ``/healthz/live``, ``/healthz/ready`` and ``/metrics``; add routers to it.

    `registry` holds the metrics of this process; without one the process's own memory, CPU and files are shown.
    """
    app = ServiceApp(
        title=title,
        description=description,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses=_DEFAULT_RESPONSES,
    )
    app.add_middleware(PlainBody)
    app.add_middleware(HeadAsGet)
    add_problem_handlers(app)
    app.include_router(_health_routes(health, registry if registry is not None else new_registry()))
    _add_docs(app)
    return app


class HeadAsGet:
    """ASGI middleware: answers HEAD as GET, without the body (RFC 9110, 9.1), for monitors that use it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def head_only(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, head_only)


def _health_routes(health: Health, registry: CollectorRegistry) -> APIRouter:
    router = APIRouter(tags=[_HEALTH])

    @router.get("/healthz/live", summary="The process answers")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get(
        "/healthz/ready",
        summary="The process can do its work",
        responses={503: {"description": "Not ready; `reasons` says why."}},
    )
    async def ready() -> JSONResponse:
        is_ready = health.is_ready
        return JSONResponse({"ready": is_ready, "reasons": health.reasons}, status_code=200 if is_ready else 503)

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _add_docs(app: FastAPI) -> None:
    """``/docs`` from files of an installed package: it works without a network. Links are relative, for proxies."""
    app.mount("/swagger", StaticFiles(directory=str(files("fastapi_swagger") / "resources")), name="swagger")
    parameters = {"tryItOutEnabled": True, "displayRequestDuration": True, "filter": True, "validatorUrl": None}

    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url="swagger/swagger-ui-bundle.js",
        swagger_css_url="swagger/swagger-ui.css",
        swagger_favicon_url="swagger/favicon-32x32.png",
        swagger_ui_parameters=parameters,
    )
    page.headers["Content-Security-Policy"] = _docs_policy(bytes(page.body))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page


def _docs_policy(page: bytes) -> str:
    """Only the script in the page, and what this service itself has. Swagger UI sets styles with pictures in them."""
    script = page.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
