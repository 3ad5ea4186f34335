"""The registry over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runner_discovery.live_registry import LiveRegistry
from runner_discovery.records import RunnerStatus
from runnerlib.contract import Catalogue, PlainRegistration, RunnerRegistration
from runnerlib.service.strict_route import StrictRoute

#: A blocking query never waits longer.
MAX_WAIT_SECONDS = 60.0

router = APIRouter(route_class=StrictRoute)


class Registered(BaseModel):
    """The answer to a registration: renew it three times within `lease_seconds`."""

    epoch: str = Field(description="Changes when the registry is started anew.")
    index: int = Field(description="Number of the catalogue's last change.")
    lease_seconds: float


def _live(request: Request) -> LiveRegistry:
    live = request.app.state.live
    assert isinstance(live, LiveRegistry)
    return live


Live = Annotated[LiveRegistry, Depends(_live)]
RunnerId = Annotated[str, Path(max_length=250, description="name-host-port")]


@router.post("/", include_in_schema=False)
@router.post("/algorithms", tags=["original"], summary="Register an algorithm at a host")
async def register_algorithm(registration: PlainRegistration, request: Request, live: Live) -> dict[str, str]:
    """For runners that know nothing more: no lease, no schema; the last host of an algorithm wins."""
    # Clients of this call expect to find the host exactly as they wrote it.
    shown = str((await request.json())["host"])
    live.registry.register_plain(registration, shown)
    live.announce()
    return {"algorithm": registration.algorithm, "host": shown}


@router.get("/", include_in_schema=False)
@router.get("/algorithms", tags=["original"], summary="Algorithm → host of a live runner")
async def list_algorithms(live: Live) -> dict[str, str]:
    return live.registry.hosts()


@router.put("/runners/{runner_id}", tags=["runners"], summary="Register a runner, or renew its lease")
async def register_runner(runner_id: RunnerId, registration: RunnerRegistration, live: Live) -> Registered:
    """Send it at start and again every third of `lease_seconds`. Another boot id replaces the former process."""
    live.registry.register(runner_id, registration)
    live.announce()
    registry = live.registry
    return Registered(epoch=registry.epoch, index=registry.index, lease_seconds=registry.lease_seconds)


@router.delete("/runners/{runner_id}", status_code=204, tags=["runners"], summary="Leave")
async def remove_runner(
    runner_id: RunnerId,
    live: Live,
    boot: Annotated[str | None, Query(max_length=64, description="Only if this is the registered boot id.")] = None,
) -> None:
    """Its algorithms stay known: tasks for them wait."""
    live.registry.remove(runner_id, boot)
    live.announce()


@router.get("/runners", tags=["runners"], summary="Live runners")
async def list_runners(live: Live) -> list[RunnerStatus]:
    return live.registry.runners()


@router.get(
    "/catalogue",
    tags=["catalogue"],
    summary="Everything that is known; waits for a change when asked to",
    response_model=Catalogue,
)
async def catalogue(
    live: Live,
    index: Annotated[int | None, Query(description="The index you know.")] = None,
    epoch: Annotated[str | None, Query(max_length=64, description="The epoch you know.")] = None,
    wait: Annotated[float, Query(ge=0, description=f"Seconds to wait for a change, at most {MAX_WAIT_SECONDS}.")] = 0,
) -> Response:
    """Answers at once unless (`epoch`, `index`) is the present state; then after the next change or `wait` seconds."""
    if index is not None:
        await live.wait_beyond(epoch, index, min(wait, MAX_WAIT_SECONDS))
    # Written directly: the framework would check it anew, at ten times the cost for a large catalogue.
    return Response(live.registry.catalogue().model_dump_json(), media_type="application/json")
