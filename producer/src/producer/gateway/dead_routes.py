"""``/dead``: failed tasks that wait for somebody's decision. List, show, replay, discard."""

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from producer.gateway import dead_views, openapi
from producer.gateway.answering import Answering
from producer.gateway.dead_desk import Changed, DeadDesk
from producer.gateway.problem_codes import ProblemCode, problem
from producer.gateway.reading import JSON, KnownQueryRoute, body_of, query_of, refuse_other_sites
from producer.gateway.wanted import LAST_DEAD_ID, DeadByFilter, DeadByIds, DeadQuery
from runnerlib.contract import DeadLetterDetail, DeadLetterListView, DeadLettersDone
from taskqueue.tasks import DeadAnswer, DeadLetter

_MANY: dict[str, type[BaseModel]] = {"ids": DeadByIds, "filter": DeadByFilter}
_SHOWING = (ProblemCode.UNKNOWN_DEAD_LETTER, ProblemCode.INVALID_ID, ProblemCode.STORE_UNAVAILABLE)
_CHANGING_MANY = (
    ProblemCode.MALFORMED,
    ProblemCode.TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID_REQUEST,
    ProblemCode.QUEUE_UNAVAILABLE,
    ProblemCode.STORE_UNAVAILABLE,
)


#: More digits than any id has; reading more takes long.
_MOST_DIGITS = 30


class NumberedRoute(KnownQueryRoute):
    """A path with a dead letter's id: words in its place belong to other paths."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        if match is not Match.NONE and not _is_number(child["path_params"]["dead_id"]):
            return Match.NONE, {}
        return match, child


class DeadRoutes:
    """Every failed task leaves a dead letter; it is open until it is replayed or discarded."""

    def __init__(self, desk: DeadDesk, answering: Answering) -> None:
        self._desk = desk
        self._answering = answering

    def router(self) -> APIRouter:
        router = APIRouter(tags=["dead letters"], route_class=KnownQueryRoute, default_response_class=Response)
        self._add_reading(router)
        self._add_many(router)
        self._add_one(router)
        return router

    def _add_reading(self, router: APIRouter) -> None:
        router.add_api_route(
            "/dead",
            self.list,
            methods=["GET"],
            summary="Open dead letters, the newest first",
            responses={
                200: openapi.answer(DeadLetterListView, "A page. It may be short, even empty, while `next` is set."),
                **openapi.problems(ProblemCode.INVALID_REQUEST, ProblemCode.STORE_UNAVAILABLE),
            },
            openapi_extra={"parameters": openapi.query_parameters(DeadQuery)},
        )
        router.add_api_route(
            "/dead/{dead_id}",
            self.show,
            methods=["GET"],
            summary="One dead letter, with its message, history and traceback",
            responses={200: openapi.answer(DeadLetterDetail, "All of it."), **openapi.problems(*_SHOWING)},
            openapi_extra={"parameters": [openapi.DEAD_ID]},
            route_class_override=NumberedRoute,
        )

    def _add_many(self, router: APIRouter) -> None:
        for path, endpoint, summary in (
            ("/dead/replay", self.replay_many, "Replay up to 1,000 dead letters"),
            ("/dead/discard", self.discard_many, "Discard up to 1,000 dead letters"),
        ):
            router.add_api_route(
                path,
                endpoint,
                methods=["POST"],
                summary=summary,
                responses={
                    200: openapi.answer(DeadLettersDone, "How many, and which were skipped. Go on with `next`."),
                    **openapi.problems(*_CHANGING_MANY),
                },
                openapi_extra={"requestBody": openapi.one_of(DeadByIds, DeadByFilter)},
            )

    def _add_one(self, router: APIRouter) -> None:
        router.add_api_route(
            "/dead/{dead_id}/replay",
            self.replay,
            methods=["POST"],
            summary="Put its task back into the queue",
            status_code=202,
            responses={
                202: openapi.task("It is queued again, durably, under its own id. `Location` is its address."),
                **openapi.problems(
                    *_SHOWING,
                    ProblemCode.OTHER_SITE,
                    ProblemCode.ALREADY_REPLAYED,
                    ProblemCode.ALREADY_DISCARDED,
                    ProblemCode.NOT_REPLAYABLE,
                    ProblemCode.NOT_FAILED,
                    ProblemCode.QUEUE_UNAVAILABLE,
                ),
            },
            openapi_extra={"parameters": [openapi.DEAD_ID]},
            route_class_override=NumberedRoute,
        )
        router.add_api_route(
            "/dead/{dead_id}/discard",
            self.discard,
            methods=["POST"],
            summary="Note that nothing more will become of it",
            responses={
                200: openapi.answer(DeadLetterDetail, "It is discarded; it can still be read for some days."),
                **openapi.problems(
                    *_SHOWING, ProblemCode.OTHER_SITE, ProblemCode.ALREADY_REPLAYED, ProblemCode.ALREADY_DISCARDED
                ),
            },
            openapi_extra={"parameters": [openapi.DEAD_ID]},
            route_class_override=NumberedRoute,
        )

    async def list(self, request: Request) -> Response:
        """All that fit the filter, without messages and tracebacks. Go on with `next` as `cursor` until it is null."""
        query = query_of(request, DeadQuery)
        page = await self._desk.page(query.as_filter(), query.limit, query.cursor)
        return Response(dead_views.page_bytes(page), media_type=JSON)

    async def show(self, request: Request) -> Response:
        """The message as it came, every attempt that failed, and the traceback of the last one."""
        return Response(dead_views.letter_bytes(await self._letter(_dead_id(request))), media_type=JSON)

    async def replay(self, request: Request) -> Response:
        """Its task runs again under its own id, with fresh retry budgets; `replays` counts it, attempts go on."""
        refuse_other_sites(request)
        dead_id = _dead_id(request)
        _require(await self._desk.replay([dead_id]), DeadAnswer.REPLAYED)
        row = await self._desk.task_of(await self._letter(dead_id))
        if row is None:
            raise problem(ProblemCode.UNKNOWN_TASK, "It was replayed, but its task has been dropped since.")
        return self._answering.task(row, 202, {"Location": f"/tasks/{row.id}"})

    async def discard(self, request: Request) -> Response:
        """It is no longer listed as open, and is dropped with the finished tasks of its time."""
        refuse_other_sites(request)
        dead_id = _dead_id(request)
        _require(await self._desk.discard([dead_id]), DeadAnswer.DISCARDED)
        return Response(dead_views.letter_bytes(await self._letter(dead_id)), media_type=JSON)

    async def replay_many(self, request: Request) -> Response:
        """Those with these `ids`, or one page of the open ones that fit a `filter` (`{}`: any)."""
        wanted = await body_of(request, _MANY)
        if isinstance(wanted, DeadByFilter):
            changed = await self._desk.replay_fitting(wanted.filter.as_filter(), wanted.limit, wanted.cursor)
        else:
            assert isinstance(wanted, DeadByIds)
            changed = await self._desk.replay(wanted.ids)
        return Response(dead_views.changed_bytes(changed, DeadAnswer.REPLAYED), media_type=JSON)

    async def discard_many(self, request: Request) -> Response:
        """Those with these `ids`, or one page of the open ones that fit a `filter` (`{}`: any)."""
        wanted = await body_of(request, _MANY)
        if isinstance(wanted, DeadByFilter):
            changed = await self._desk.discard_fitting(wanted.filter.as_filter(), wanted.limit, wanted.cursor)
        else:
            assert isinstance(wanted, DeadByIds)
            changed = await self._desk.discard(wanted.ids)
        return Response(dead_views.changed_bytes(changed, DeadAnswer.DISCARDED), media_type=JSON)

    async def _letter(self, dead_id: int) -> DeadLetter:
        letter = await self._desk.letter(dead_id)
        if letter is None:
            raise problem(*dead_views.refusal_of(dead_id, DeadAnswer.UNKNOWN))
        return letter


def _require(changed: Changed, wanted: DeadAnswer) -> None:
    [(dead_id, answer)] = changed.answers
    if answer is not wanted:
        raise problem(*dead_views.refusal_of(dead_id, answer))


def _dead_id(request: Request) -> int:
    dead_id = int(str(request.path_params["dead_id"])[:_MOST_DIGITS])
    if not 0 < dead_id <= LAST_DEAD_ID:
        raise problem(ProblemCode.INVALID_ID, f"The id of a dead letter is a number from 1 to {LAST_DEAD_ID}.")
    return dead_id


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
