"""The registry's HTTP application."""

from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import Response

from runner_discovery.errors import (
    BootMissing,
    HostNotAllowed,
    LookupPending,
    OtherBoot,
    OtherName,
    OtherOwner,
    Overloaded,
    RegistryError,
    RegistryFull,
    TooLarge,
    UnknownAlgorithm,
    UnknownRunner,
)
from runner_discovery.host_rule import EVERY_HOST, HostRule
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.metrics import add_metrics
from runner_discovery.routes import router
from runner_discovery.turns import LargeInTurn
from runnerlib.contract.identity import RunnerKeys
from runnerlib.contract.registry import MAX_DESCRIPTIONS_BYTES
from runnerlib.service.access import COMMON_RULES, METRICS_PATH, Role, RouteTable, guard_peers, identify
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
    OtherName: 403,
    HostNotAllowed: 403,
    LookupPending: 503,
    BootMissing: 400,
    TooLarge: 413,
    RegistryFull: 507,
    Overloaded: 503,
}


_SERVICE, _ANY = frozenset({Role.SERVICE}), frozenset({Role.RUNNER, Role.SERVICE})
#: Who may call what where this environment has keys.
ROUTES = RouteTable(
    {
        **COMMON_RULES,
        ("POST", "/"): frozenset({Role.RUNNER}),
        ("POST", "/algorithms"): frozenset({Role.RUNNER}),
        ("GET", "/"): _ANY,
        ("GET", "/algorithms"): _ANY,
        ("PUT", "/runners/{runner_id}"): frozenset({Role.RUNNER}),
        ("DELETE", "/runners/{runner_id}"): _ANY,
        ("GET", "/runners"): _SERVICE,
        ("GET", "/catalogue"): _SERVICE,
        ("PUT", "/owners/{algorithm}"): _SERVICE,
        ("DELETE", "/owners"): _SERVICE,
        ("GET", METRICS_PATH): frozenset({Role.SERVICE, Role.METRICS}),
    }
)


def create_discovery_app(
    live: LiveRegistry,
    health: Health,
    hosts: HostRule = EVERY_HOST,
    keys: RunnerKeys | None = None,
    metrics_token: str = "",
) -> FastAPI:
    """With `keys`, runners and services must show the tokens that were made from them."""
    metrics = new_registry()
    add_metrics(metrics, live.registry)
    app = create_app(
        "Runner discovery", health=health, registry=metrics, description="Which runner serves which algorithm."
    )
    app.state.live = live
    app.state.hosts = hosts
    app.include_router(router)
    app.add_exception_handler(RegistryError, _refused)
    app.add_middleware(LargeInTurn, turns=live.turns)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    if keys is not None:
        guard_peers(app, ROUTES, partial(identify, keys), metrics_token)
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    status = _STATUS.get(type(error), 422)
    return problem_response(status, error.code, str(error), {"Retry-After": "1"} if status == 503 else None)
