"""``/algorithms`` and ``/status``: what the environment offers, and how it is doing."""

import asyncio
import time
from collections import OrderedDict

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
from producer.gateway.callers import caller_of
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.request_parsing import KnownQueryRoute, problem
from runnerlib.contract import near_names
from taskqueue.protocols import TaskStore
from taskqueue.tasks import Counts
from taskqueue.tokens import EVERYTHING, Reach

#: Counting reads the index of every row (0.4 s with a million of them), so an answer is used for this long.
FRESH_SECONDS = 1.0

router = APIRouter(tags=["environment"], route_class=KnownQueryRoute)


#: Callers that each see other tasks, whose counts are remembered.
_MOST_REACHES = 100


class CountsCache:
    """Tasks by algorithm and state. Requests that arrive while it counts share the same answer."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        #: by what was counted, and when (monotonic); the latest last
        self._counted: OrderedDict[Reach, tuple[list[Counts], float]] = OrderedDict()

    async def counts(self, reach: Reach) -> list[Counts]:
        """Of what is in reach, not older than a second. Raises StoreUnavailable."""
        async with self._lock:
            found = self._counted.get(reach)
            if found is not None and time.monotonic() - found[1] <= FRESH_SECONDS:
                return found[0]
            counts = await self._store.counts(reach)
            self._counted[reach] = counts, time.monotonic()
            self._counted.move_to_end(reach)
            if len(self._counted) > _MOST_REACHES:
                self._counted.popitem(last=False)
            return counts


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
    counts = await _counts(request)
    return environment_status(view.catalogue, view.is_sure, counts, time.time())


async def _infos(request: Request) -> list[AlgorithmInfo]:
    return algorithm_infos(request.app.state.catalogue_view.catalogue, await _counts(request), time.time())


async def _counts(request: Request) -> list[Counts]:
    counts: CountsCache = request.app.state.counts
    # one that may see everything shares its counts with the others that may
    reads = caller_of(request).reads
    return await counts.counts(EVERYTHING if reads.others and not reads.algorithms else reads)
