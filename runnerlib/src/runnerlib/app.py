"""The runner's HTTP application."""

from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.adapter.model import Adapter
from runnerlib.contract import HEADER_BOOT
from runnerlib.errors import Refusal
from runnerlib.openapi import Components
from runnerlib.routes import refusal_response, runner_routes
from runnerlib.run_manager import RunManager
from runnerlib.service.health import Health
from runnerlib.service.web import BodyLimit, create_app

#: The largest message of the queue, and what an item of a batch has around it.
MAX_BODY_BYTES = 16 * 1024 * 1024 + 1024


def create_runner_app(
    name: str, boot: str, adapter: Adapter, manager: RunManager, health: Health, registry: CollectorRegistry
) -> FastAPI:
    """Routes, docs, health, metrics, and the boot id on every answer."""
    components = Components()
    description = (adapter.module.__doc__ or "").strip().split("\n\n")[0]
    app = create_app(name, health=health, registry=registry, description=description)
    app.include_router(runner_routes(manager, adapter, components))
    app.add_exception_handler(Refusal, refusal_response)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(BootHeader, boot=boot)
    _document(app, components)
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


def _document(app: FastAPI, components: Components) -> None:
    """Adds the schemas of the algorithms to the OpenAPI document, which is made once, when it is first asked for."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document.setdefault("components", {}).setdefault("schemas", {}).update(components.schemas)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
