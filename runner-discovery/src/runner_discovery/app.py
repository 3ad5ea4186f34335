"""The registry's HTTP application."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from runner_discovery.errors import OtherBoot, RegistryError, UnknownRunner
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.metrics import add_metrics
from runner_discovery.routes import router
from runnerlib.service.health import Health
from runnerlib.service.metrics import new_registry
from runnerlib.service.web import BodyLimit, create_app, problem_response

MAX_BODY_BYTES = 1024 * 1024

_STATUS: dict[type[RegistryError], int] = {UnknownRunner: 404, OtherBoot: 409}


def create_discovery_app(live: LiveRegistry, health: Health) -> FastAPI:
    metrics = new_registry()
    add_metrics(metrics, live.registry)
    app = create_app(
        "Runner discovery", health=health, registry=metrics, description="Which runner serves which algorithm."
    )
    app.state.live = live
    app.include_router(router)
    app.add_exception_handler(RegistryError, _refused)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    return problem_response(_STATUS.get(type(error), 422), error.code, str(error))
