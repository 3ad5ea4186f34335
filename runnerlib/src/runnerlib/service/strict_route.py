"""Routes that read their JSON body with the contract's strict parser."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from runnerlib.contract import StrictJsonError, strict_json
from runnerlib.service.body_budget import parsed
from runnerlib.service.problems import ProblemError


class StrictRequest(Request):
    """A request whose `json` refuses what two parsers would read differently."""

    async def json(self) -> Any:
        try:
            return await parsed(await self.body(), strict_json.loads)
        except StrictJsonError as error:
            raise ProblemError(400, "malformed", f"The body cannot be read: {error}.") from None


class StrictRoute(APIRoute):
    """Use: ``APIRouter(route_class=StrictRoute)``; a body that is not strict JSON is answered 400 ``malformed``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict
