"""``/algorithms`` and ``/status``: what the environment offers, and how it is doing."""

import asyncio
import time

from fastapi import APIRouter, Request

from producer.gateway import openapi
from producer.gateway.admission import CatalogueView
from producer.gateway.algorithm_views import (
    AlgorithmInfo,
    AlgorithmList,
    Status,
    algorithm_infos,
    environment_status,
)
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.request_parsing import KnownQueryRoute, problem
from runnerlib.contract import near_names
from taskqueue.protocols import TaskStore
from taskqueue.tasks import Counts

#: Counting reads the index of every row (0.4 s with a million of them), so an answer is used for this long.
FRESH_SECONDS = 1.0

router = APIRouter(tags=["environment"], route_class=KnownQueryRoute)


class CountsCache:
    """Tasks by algorithm and state. Requests that arrive while it counts share the same answer."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._counts: list[Counts] = []
        self._counted_at: float | None = None

    async def counts(self) -> list[Counts]:
        """Not older than a second. Raises StoreUnavailable."""
        async with self._lock:
            if self._counted_at is None or time.monotonic() - self._counted_at > FRESH_SECONDS:
                self._counts = await self._store.counts()
                self._counted_at = time.monotonic()
            return self._counts


@router.get("/algorithms", summary="Every algorithm", responses=openapi.problems(ProblemCode.STORE_UNAVAILABLE))
async def algorithms(request: Request) -> AlgorithmList:
    """Fields, example, limits, runners, and how many tasks wait and run."""
    view: CatalogueView = request.app.state.catalogue_view
    return AlgorithmList(algorithms=await _infos(request), complete=view.is_sure)


@router.get(
    "/algorithms/{name}",
    summary="One algorithm",
    responses=openapi.problems(ProblemCode.UNKNOWN_ALGORITHM, ProblemCode.STORE_UNAVAILABLE),
    openapi_extra={"parameters": [openapi.ALGORITHM]},
)
async def algorithm(request: Request) -> AlgorithmInfo:
    name = str(request.path_params["name"])
    infos = {info.name: info for info in await _infos(request)}
    if name in infos:
        return infos[name]
    near = near_names(name[:100].lower(), list(infos))
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /algorithms lists them."
    raise problem(ProblemCode.UNKNOWN_ALGORITHM, f"No runner ever offered {name[:100]!r}; {advice}")


@router.get("/status", summary="The environment at a glance", responses=openapi.problems(ProblemCode.STORE_UNAVAILABLE))
async def status(request: Request) -> Status:
    """Runners, algorithms, tasks by state, and how long the oldest waits."""
    view: CatalogueView = request.app.state.catalogue_view
    counts = await request.app.state.counts.counts()
    return environment_status(view.catalogue, view.is_sure, counts, time.time())


async def _infos(request: Request) -> list[AlgorithmInfo]:
    counts = await request.app.state.counts.counts()
    return algorithm_infos(request.app.state.catalogue_view.catalogue, counts, time.time())
