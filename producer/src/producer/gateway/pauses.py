"""``/algorithms/{algorithm}/pause`` and ``/resume``: its tasks wait, whoever sends them; those that run end."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from producer.gateway import openapi
from producer.gateway.admission import CatalogueView
from producer.gateway.algorithm_views import PauseInfo
from producer.gateway.algorithms import unknown_algorithm
from producer.gateway.callers import audit_note, caller_of
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.request_parsing import KnownQueryRoute, problem
from runnerlib.contract import is_algorithm
from taskqueue.pauses import PauseWatch
from taskqueue.protocols import TaskStore
from taskqueue.tokens import fits

router = APIRouter(tags=["environment"], route_class=KnownQueryRoute)

_PROBLEMS = openapi.problems(
    ProblemCode.FORBIDDEN, ProblemCode.UNKNOWN_ALGORITHM, ProblemCode.INVALID_REQUEST, ProblemCode.STORE_UNAVAILABLE
)


class PauseAnswer(BaseModel):
    """Whether an algorithm is paused."""

    algorithm: str
    paused: PauseInfo | None = Field(description="Null: its tasks are handed out.")


@router.post(
    "/algorithms/{name}/pause",
    summary="Pause an algorithm",
    responses=_PROBLEMS,
    openapi_extra={"parameters": [openapi.ALGORITHM]},
)
async def pause(request: Request) -> PauseAnswer:
    """No controller hands out a task of it from a second later on; `waiting_for` of those that wait says so. A pause
    survives restarts. Pausing it again changes nothing."""
    name, caller = _algorithm(request), caller_of(request)
    paused = await _store(request).pause(name, caller.name, note=audit_note(request, "pause"))
    await _pauses(request).read()
    return PauseAnswer(algorithm=name, paused=PauseInfo.of(paused))


@router.post(
    "/algorithms/{name}/resume",
    summary="Resume an algorithm",
    responses=_PROBLEMS,
    openapi_extra={"parameters": [openapi.ALGORITHM]},
)
async def resume(request: Request) -> PauseAnswer:
    """Its tasks are handed out again, within a second. Resuming one that is not paused changes nothing."""
    name = _algorithm(request)
    await _store(request).resume(name, note=audit_note(request, "resume"))
    await _pauses(request).read()
    return PauseAnswer(algorithm=name, paused=None)


def _algorithm(request: Request) -> str:
    """The algorithm in the path, if it is one that the caller may pause."""
    name, caller = str(request.path_params["name"]), caller_of(request)
    if not fits(name, caller.algorithms):
        limits = ", ".join(caller.algorithms)
        raise problem(ProblemCode.FORBIDDEN, f"This token may not pause {name[:100]!r}; it is limited to {limits}.")
    view: CatalogueView = request.app.state.catalogue_view
    known = {} if view.catalogue is None else view.catalogue.algorithms
    is_paused = name in _pauses(request).paused
    if not is_algorithm(name) or (name not in known and view.is_sure and not is_paused):
        raise unknown_algorithm(name, known)
    return name


def _store(request: Request) -> TaskStore:
    store: TaskStore = request.app.state.tasks.store
    return store


def _pauses(request: Request) -> PauseWatch:
    pauses: PauseWatch = request.app.state.pauses
    return pauses
