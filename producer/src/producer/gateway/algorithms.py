"""``/algorithms`` and ``/status``: what the environment offers, and how it is doing."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

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
from runnerlib.service.web import ProblemError
from taskqueue.protocols import TaskStore
from taskqueue.tasks import Counts
from taskqueue.tokens import EVERYTHING, Reach

#: Counting reads the index of every row (0.4 s with a million of them), so an answer is used for this long.
FRESH_SECONDS = 1.0

router = APIRouter(tags=["environment"], route_class=KnownQueryRoute)


#: Callers that each see other tasks, whose counts are remembered.
_MOST_REACHES = 100


@dataclass(slots=True)
class _Counted:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    counts: list[Counts] = field(default_factory=list)
    #: monotonic
    at: float | None = None


class CountsCache:
    """Tasks by algorithm and state. Requests that arrive while it counts share the same answer."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        #: by what was counted; the latest last
        self._counted: OrderedDict[Reach, _Counted] = OrderedDict()

    async def counts(self, reach: Reach) -> list[Counts]:
        """Of what is in reach, not older than a second. Raises StoreUnavailable."""
        counted = self._counted.setdefault(reach, _Counted())
        self._counted.move_to_end(reach)
        if len(self._counted) > _MOST_REACHES:
            self._counted.popitem(last=False)
        async with counted.lock:
            if counted.at is None or time.monotonic() - counted.at > FRESH_SECONDS:
                counted.counts = await self._store.counts(reach)
                counted.at = time.monotonic()
            return counted.counts


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
    raise unknown_algorithm(name, infos)


@router.get("/status", summary="The environment at a glance", responses=openapi.problems(ProblemCode.STORE_UNAVAILABLE))
async def status(request: Request) -> Status:
    """Runners, algorithms, tasks by state, and how long the oldest waits."""
    view: CatalogueView = request.app.state.catalogue_view
    counts = await _counts(request)
    return environment_status(view.catalogue, view.is_sure, counts, request.app.state.pauses.paused, time.time())


def unknown_algorithm(name: str, known: Collection[str]) -> ProblemError:
    near = near_names(name[:100].lower(), list(known))
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /algorithms lists them."
    return problem(ProblemCode.UNKNOWN_ALGORITHM, f"No runner ever offered {name[:100]!r}; {advice}")


async def _infos(request: Request) -> list[AlgorithmInfo]:
    state = request.app.state
    return algorithm_infos(state.catalogue_view.catalogue, await _counts(request), state.pauses.paused, time.time())


async def _counts(request: Request) -> list[Counts]:
    counts: CountsCache = request.app.state.counts
    # one that may see everything shares its counts with the others that may
    reads = caller_of(request).reads
    return await counts.counts(EVERYTHING if reads.others and not reads.algorithms else reads)
