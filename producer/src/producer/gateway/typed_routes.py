"""``/algorithms/{algorithm}/tasks`` and ``…/run``: the payload alone is the body.

The OpenAPI document shows both for each known algorithm, with its own fields: see `document`.
"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from producer.gateway.answering import Answering
from producer.gateway.desk import Desk, Queued
from producer.gateway.prefer import wait_seconds
from producer.gateway.reading import JSON, query_of, require_type, spare_id_of
from producer.gateway.submission import Refused
from producer.gateway.wanted import ExpiresQuery
from taskqueue.tasks import TaskRow

#: How long a call of `run` waits for the result unless the sender says otherwise.
RUN_WAIT_SECONDS = 20.0
_NOT_SAID = -1.0


class TypedRoutes:
    """One pair of calls for each algorithm; also for those that are not known yet, as ``/tasks`` takes them."""

    def __init__(self, desk: Desk, answering: Answering) -> None:
        self._desk = desk
        self._answering = answering

    def router(self) -> APIRouter:
        router = APIRouter(default_response_class=Response, include_in_schema=False)
        router.add_api_route("/algorithms/{algorithm}/tasks", self.queue, methods=["POST"])
        router.add_api_route("/algorithms/{algorithm}/run", self.run, methods=["POST"])
        return router

    async def queue(self, request: Request) -> Response:
        return await self._answering.submitted(await self._submit(request), wait_seconds(_prefer(request)))

    async def run(self, request: Request) -> Response:
        asked = wait_seconds(_prefer(request), _NOT_SAID)
        seconds = RUN_WAIT_SECONDS if asked == _NOT_SAID else asked
        return await self._answering.submitted(await self._submit(request), seconds, is_asked=asked != _NOT_SAID)

    async def _submit(self, request: Request) -> Queued | TaskRow | Refused:
        require_type(request, JSON)
        spare_id = spare_id_of(request)
        expires_seconds = query_of(request, ExpiresQuery).expires_seconds
        algorithm = str(request.path_params["algorithm"])
        return await self._desk.submit_payload(algorithm, await request.body(), spare_id, expires_seconds)


def _prefer(request: Request) -> str | None:
    return request.headers.get("prefer")
