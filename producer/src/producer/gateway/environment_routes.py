"""``/algorithms`` and ``/status``: what there is, and how it is doing."""

import time

from fastapi import APIRouter, Request

from producer.gateway import openapi
from producer.gateway.algorithm_views import AlgorithmInfo, AlgorithmList, Status, algorithm_infos, status
from producer.gateway.counts import CountsCache
from producer.gateway.problem_codes import ProblemCode, problem
from producer.gateway.reading import KnownQueryRoute
from producer.gateway.submission import Known
from runnerlib.contract import near_names


class EnvironmentRoutes:
    """Read-only; counts are up to a second old."""

    def __init__(self, known: Known, counts: CountsCache) -> None:
        self._known = known
        self._counts = counts

    def router(self) -> APIRouter:
        router = APIRouter(tags=["environment"], route_class=KnownQueryRoute)
        router.add_api_route(
            "/algorithms",
            self.algorithms,
            methods=["GET"],
            summary="Every algorithm",
            response_model=AlgorithmList,
            responses=openapi.problems(ProblemCode.STORE_UNAVAILABLE),
        )
        router.add_api_route(
            "/algorithms/{name}",
            self.algorithm,
            methods=["GET"],
            summary="One algorithm",
            response_model=AlgorithmInfo,
            responses=openapi.problems(ProblemCode.UNKNOWN_ALGORITHM, ProblemCode.STORE_UNAVAILABLE),
            openapi_extra={"parameters": [openapi.ALGORITHM]},
        )
        router.add_api_route(
            "/status",
            self.status,
            methods=["GET"],
            summary="The environment at a glance",
            response_model=Status,
            responses=openapi.problems(ProblemCode.STORE_UNAVAILABLE),
        )
        return router

    async def algorithms(self) -> AlgorithmList:
        """Fields, example, limits, runners, and how many tasks wait and run."""
        infos = algorithm_infos(self._known.catalogue, await self._counts.counts(), time.time())
        return AlgorithmList(algorithms=infos, complete=self._known.is_sure)

    async def algorithm(self, request: Request) -> AlgorithmInfo:
        name = str(request.path_params["name"])
        infos = algorithm_infos(self._known.catalogue, await self._counts.counts(), time.time())
        for info in infos:
            if info.name == name:
                return info
        near = near_names(name[:100].lower(), [info.name for info in infos])
        advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /algorithms lists them."
        raise problem(ProblemCode.UNKNOWN_ALGORITHM, f"No runner ever offered {name[:100]!r}; {advice}")

    async def status(self) -> Status:
        """Runners, algorithms, tasks by state, and how long the oldest waits."""
        return status(self._known.catalogue, self._known.is_sure, await self._counts.counts(), time.time())
