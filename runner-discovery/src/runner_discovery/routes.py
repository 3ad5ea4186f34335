"""The registry over HTTP."""

import asyncio
from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runner_discovery.admission import admitted, known_as
from runner_discovery.errors import OtherName
from runner_discovery.host_rule import HostRule
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.records import Origin, RunnerStatus
from runner_discovery.turns import SMALL_BYTES
from runnerlib.contract import (
    AlgorithmName,
    Catalogue,
    PlainRegistration,
    Registered,
    RunnerRegistration,
)
from runnerlib.service.access import Role, peer_of
from runnerlib.service.strict_route import StrictRoute

#: A blocking query never waits longer.
MAX_WAIT_SECONDS = 60.0

router = APIRouter(route_class=StrictRoute)


class Owner(BaseModel):
    """Who gets an algorithm: the name of a live runner that offers it; `plain:host:port` for a plain registration."""

    runner: str = Field(max_length=310)


class Released(BaseModel):
    """What no longer belongs to a runner."""

    algorithms: list[str]
    live: bool = Field(description="Whether a live runner of the name still has algorithms of its own.")


def _live(request: Request) -> LiveRegistry:
    live = request.app.state.live
    assert isinstance(live, LiveRegistry)
    return live


async def _origin(request: Request, host: str, known: Origin | None = None) -> Origin:
    """Where this registration comes from. Raises HostNotAllowed.

    `known`: where the runner came from that is known for this host; it was checked then.
    """
    peer, address = peer_of(request), "" if request.client is None else request.client.host
    name, key_id = ("", "") if peer is None else (peer.name, peer.key_id)
    if known is not None and (known.key_id, known.peer) == (key_id, address):
        return known
    rule = request.app.state.hosts
    assert isinstance(rule, HostRule)
    return Origin(key_id=key_id, peer=address, address=await rule.checked_address(host, address, name))


Live = Annotated[LiveRegistry, Depends(_live)]
RunnerId = Annotated[str, Path(max_length=270, description="name-host-port")]


@router.post("/", include_in_schema=False)
@router.post("/algorithms", tags=["original"], summary="Register an algorithm at a host")
async def register_algorithm(registration: PlainRegistration, request: Request, live: Live) -> dict[str, str]:
    """For runners that know nothing more: no lease, no schema; of plain registrations the last one wins.

    An algorithm that belongs to a runner which registers itself is refused (409 `other_owner`).
    """
    # Clients of this call expect to find the host exactly as they wrote it.
    shown = str((await request.json())["host"])
    peer, origin = peer_of(request), await _origin(request, registration.host)
    async with live.turns.turn(len(await request.body())):
        live.registry.register_plain(registration, shown, "" if peer is None else peer.name, origin)
        live.announce()
    return {"algorithm": registration.algorithm, "host": shown}


@router.get("/", include_in_schema=False)
@router.get("/algorithms", tags=["original"], summary="Algorithm → host of a live runner")
async def list_algorithms(live: Live) -> dict[str, str]:
    return live.registry.hosts()


@router.put("/runners/{runner_id}", tags=["runners"], summary="Register a runner, or renew its lease")
async def register_runner(
    runner_id: RunnerId, registration: RunnerRegistration, request: Request, live: Live
) -> Registered:
    """Send it at start and again every third of `lease_seconds`. Another boot id replaces the former process.

    An algorithm belongs to the first runner name that registers it. The answer's `clashes` are those that belong to
    another name: this runner gets no tasks of them, and its author should be told.
    """
    peer = peer_of(request)
    if peer is not None and peer.name != registration.name:
        raise OtherName(runner_id, registration.name, peer.name)
    known_id = known_as(runner_id, registration.name, "" if peer is None else peer.key_id)
    registry, size = live.registry, len(await request.body())
    is_large = size > SMALL_BYTES
    offered = await asyncio.to_thread(admitted, registration) if is_large else admitted(registration)
    # A large one has its turn already; what only renews a lease costs nobody else anything.
    renews = registry.would_renew(known_id, registration, offered)
    origin = await _origin(request, registration.host, registry.origin_of(known_id, registration.host))
    async with live.turns.turn(size) if not is_large and not renews else nullcontext():
        registry.register(runner_id, registration, offered, origin)
        live.announce()
    return Registered(
        epoch=registry.epoch,
        index=registry.index,
        lease_seconds=registry.lease_seconds,
        clashes=registry.clashes(known_id),
    )


@router.delete("/runners/{runner_id}", status_code=204, tags=["runners"], summary="Leave")
async def remove_runner(
    runner_id: RunnerId,
    live: Live,
    request: Request,
    boot: Annotated[
        str | None, Query(max_length=64, description="Boot id of the process that leaves; a plain runner has none.")
    ] = None,
) -> None:
    """Its algorithms stay known and its own: tasks for them wait. A newer process of the runner stays registered."""
    peer = peer_of(request)
    if peer is not None and peer.role is Role.RUNNER:
        runner_id = known_as(runner_id, peer.name, peer.key_id)
    live.registry.remove(runner_id, boot)
    live.announce()


@router.put("/owners/{algorithm}", status_code=204, tags=["owners"], summary="Give an algorithm to another runner")
async def take_over(algorithm: Annotated[AlgorithmName, Path()], owner: Owner, live: Live) -> None:
    """At once: the former owner gets no more tasks of it, and what it runs goes on."""
    live.registry.take_over(algorithm, owner.runner)
    live.announce()


@router.delete("/owners", tags=["owners"], summary="A runner is no more")
async def release_owner(live: Live, runner: Annotated[str, Query(max_length=310, description="Its name.")]) -> Released:
    """What it owned belongs to who offers it, or registers it next; but what a live runner of the name has stays."""
    released = live.registry.release(runner)
    live.announce()
    return Released(algorithms=released, live=live.registry.owns_something(runner))


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
    changes: Annotated[bool, Query(description="Only what changed after `index`, when that is still known.")] = False,
) -> Response:
    """Answers at once unless (`epoch`, `index`) is the present state; then after the next change or `wait` seconds."""
    if index is not None:
        await live.wait_beyond(epoch, index, min(wait, MAX_WAIT_SECONDS))
    since = index if changes and epoch == live.registry.epoch else None
    # Written directly: the framework would check it anew, at ten times the cost for a large catalogue.
    return Response(live.registry.catalogue_json(since), media_type="application/json")
