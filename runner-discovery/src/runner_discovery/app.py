"""The registry's HTTP application."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from runner_discovery.errors import (
    BootMissing,
    OtherBoot,
    OtherOwner,
    Overloaded,
    RegistryError,
    RegistryFull,
    TooLarge,
    UnknownAlgorithm,
    UnknownRunner,
)
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.metrics import add_metrics
from runner_discovery.routes import router
from runner_discovery.turns import LargeInTurn
from runnerlib.contract.registry import MAX_DESCRIPTIONS_BYTES
from runnerlib.service.health import Health
from runnerlib.service.metrics import new_registry
from runnerlib.service.web import BodyLimit, create_app, problem_response

#: A registration, and what is around its descriptions.
MAX_BODY_BYTES = MAX_DESCRIPTIONS_BYTES + 64 * 1024

_STATUS: dict[type[RegistryError], int] = {
    UnknownRunner: 404,
    UnknownAlgorithm: 404,
    OtherBoot: 409,
    OtherOwner: 409,
    BootMissing: 400,
    TooLarge: 413,
    RegistryFull: 507,
    Overloaded: 503,
}


def create_discovery_app(live: LiveRegistry, health: Health) -> FastAPI:
    metrics = new_registry()
    add_metrics(metrics, live.registry)
    app = create_app(
        "Runner discovery", health=health, registry=metrics, description="Which runner serves which algorithm."
    )
    app.state.live = live
    app.include_router(router)
    app.add_exception_handler(RegistryError, _refused)
    app.add_middleware(LargeInTurn, turns=live.turns)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    return problem_response(_STATUS.get(type(error), 422), error.code, str(error))
