"""``POST /tasks/lookup``: many tasks by their ids in one call, for whoever waits for many."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from producer.gateway import openapi, views
from producer.gateway.desk import Desk
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.reading import JSON, KnownQueryRoute, body_of
from producer.gateway.wanted import TaskId
from runnerlib.contract import TaskView

MOST_IDS = 100
#: Results have up to megabytes each; what does not fit is asked for again.
MOST_ANSWER_BYTES = 8 * 1024 * 1024
#: Rows come with their payloads, too. So few are in memory together, unless the first ones show that these are small.
_FEW = 10
_SMALL_BYTES = 256 * 1024


class TasksByIds(BaseModel):
    """Some tasks, by their ids."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Annotated[TaskId, Field(strict=True)]] = Field(max_length=MOST_IDS)


class FoundTasks(BaseModel):
    """The tasks in the order of the ids; of ids that nobody knows there is none."""

    tasks: list[TaskView]
    left_out: list[str] = Field(description="Ids of tasks for which the answer had no room; ask for them again.")


class LookupRoutes:
    """A page of results costs one call, and the store one SELECT."""

    def __init__(self, desk: Desk, why: views.Why) -> None:
        self._desk = desk
        self._why = why

    def router(self) -> APIRouter:
        router = APIRouter(tags=["tasks"], route_class=KnownQueryRoute, default_response_class=Response)
        router.add_api_route(
            "/tasks/lookup",
            self.lookup,
            methods=["POST"],
            summary=f"Up to {MOST_IDS} tasks and their results",
            responses={
                200: openapi.answer(FoundTasks, "Those that are known, as they are now."),
                **openapi.problems(
                    ProblemCode.MALFORMED,
                    ProblemCode.TOO_LARGE,
                    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
                    ProblemCode.INVALID_REQUEST,
                    ProblemCode.STORE_UNAVAILABLE,
                ),
            },
            openapi_extra={"requestBody": openapi.one_of(TasksByIds)},
        )
        return router

    async def lookup(self, request: Request) -> Response:
        """To wait for many tasks: wait for one of them with `GET /tasks/{id}`, then ask for all here."""
        wanted = await body_of(request, {"ids": TasksByIds})
        ids = list(dict.fromkeys(wanted.ids))
        found: list[bytes] = []
        left_out: list[str] = []
        size, step = 0, _FEW
        while ids and not left_out:
            part, ids = ids[:step], ids[step:]
            rows = await self._desk.look_many(part)
            for row in (rows[task_id] for task_id in part if task_id in rows):
                view = views.task_bytes(row, self._why) if size < MOST_ANSWER_BYTES else b""
                if view and (not found or size + len(view) <= MOST_ANSWER_BYTES):
                    found.append(view)
                    size += len(view)
                else:
                    left_out.append(row.id)
            is_small = size + sum(len(row.payload) for row in rows.values()) <= _SMALL_BYTES
            step = MOST_IDS if is_small else _FEW
        return Response(views.found_bytes(found, left_out + ids), media_type=JSON)
