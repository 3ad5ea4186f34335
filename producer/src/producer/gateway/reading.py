"""Reads what came in a request, or refuses it in a sentence that names what does not fit."""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_origin

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response

from producer.gateway.problem_codes import ProblemCode, problem
from runnerlib.contract import StrictJsonError, is_task_id, near_names, strict_json
from runnerlib.service.web import ProblemError

JSON = "application/json"
NDJSON = "application/x-ndjson"

#: Longest piece of a sender's own words in an answer.
_MOST_SHOWN = 80
_MOST_ERRORS = 20
_PARAMETER = "parameter"
_FIELD = "field"

M = TypeVar("M", bound=BaseModel)


class KnownQueryRoute(APIRoute):
    """Refuses parameters that its OpenAPI operation does not have: one that is misspelt would change nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        told = (self.openapi_extra or {}).get("parameters", ())
        known = [parameter["name"] for parameter in told if parameter["in"] == "query"]

        async def checked(request: Request) -> Response:
            unknown = [name for name in request.query_params if name not in known]
            if unknown:
                raise _invalid([(name[:_MOST_SHOWN], _unknown(name, known, _PARAMETER)) for name in unknown])
            return await handle(request)

        return checked


def require_type(request: Request, *wanted: str) -> str:
    """A page in somebody's browser can send any other type here without asking; JSON it cannot."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given in wanted:
        return given
    detail = f"Send the body with the header 'Content-Type: {wanted[0]}'."
    raise problem(ProblemCode.UNSUPPORTED_MEDIA_TYPE, detail)


def refuse_other_sites(request: Request) -> None:
    """For calls without a body, where a browser does not ask first: it says itself whose page it was."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # Over plain HTTP, but on the machine itself, and in older ones it tells the page's origin alone.
    is_other = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    if is_other if site is None else site.lower() in ("cross-site", "same-site"):
        raise problem(ProblemCode.OTHER_SITE, "Pages of other sites may not do this; use the gateway's own /docs.")


def task_id_of(request: Request) -> str:
    """From the path."""
    task_id = request.path_params["task_id"]
    if not is_task_id(task_id):
        raise problem(ProblemCode.INVALID_ID, "A task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return str(task_id)


def spare_id_of(request: Request) -> str | None:
    """The Idempotency-Key; it may come in quotes (it is a structured header)."""
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    key = header.strip().strip('"')
    if not is_task_id(key):
        detail = "An Idempotency-Key serves as the task's id here: 1 to 128 of A-Z a-z 0-9 . _ : -"
        raise problem(ProblemCode.INVALID_ID, detail)
    return key


def query_of(request: Request, model: type[M]) -> M:
    """The query's parameters, as a model; none that it does not know."""
    pairs = request.query_params.multi_items()
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1 and name not in lists]
    if twice:
        raise _invalid([(name, "is given more than once") for name in twice])
    return _validated(model, values, _PARAMETER)


async def body_of(request: Request, choices: dict[str, type[M]]) -> M:
    """A JSON object, read strictly; the one of the `choices`' keys that it has decides what it must be."""
    require_type(request, JSON)
    try:
        value = strict_json.loads(await request.body())
    except StrictJsonError as error:
        raise problem(ProblemCode.MALFORMED, f"The body is {error}.") from None
    keys = [key for key in choices if isinstance(value, dict) and key in value]
    if len(keys) != 1:
        names = " or ".join(map(repr, choices))
        raise _invalid([("body", f"must be an object with either {names}")])
    return _validated(choices[keys[0]], value, _FIELD)


def _validated(model: type[M], values: dict[str, Any], what: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise _invalid([_in_words(one, model, what) for one in found]) from None


def _in_words(error: ErrorDetails, model: type[BaseModel], what: str) -> tuple[str, str]:
    place = _place(error["loc"], what)
    if error["type"] == "extra_forbidden":
        return place, _unknown(str(error["loc"][-1]), _fields_at(error["loc"][:-1], model), what)
    text = error["msg"].removeprefix("Value error, ")
    for beginning in ("Input should ", "String should ", "List should ", "Datetime should "):
        text = text.replace(beginning, "must ", 1) if text.startswith(beginning) else text
    return place, text[:300]


def _fields_at(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """What there is where something unknown was found."""
    for part in loc:
        inner = model.model_fields[str(part)].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _place(loc: tuple[int | str, ...], what: str) -> str:
    """``ids[3]``; of a parameter that may be given more than once, its name."""
    text = ""
    for part in loc:
        if isinstance(part, str):
            text += f".{part[:_MOST_SHOWN]}" if text else part[:_MOST_SHOWN]
        elif what == _FIELD:
            text += f"[{part}]"
    return text or "body"


def _unknown(name: str, known: list[str], what: str) -> str:
    near = near_names(name[:_MOST_SHOWN], known)
    if near:
        return f"is not a {what} here; did you mean {near[0]!r}?"
    return f"is not a {what} here; there are {', '.join(known) or 'none'}"


def _invalid(errors: list[tuple[str, str]]) -> ProblemError:
    told = [{"field": field, "message": message} for field, message in errors[:_MOST_ERRORS]]
    detail = "; ".join(f"{field} {message}" for field, message in errors[:3])
    if len(errors) > 3:
        detail += f"; and {len(errors) - 3} more"
    return problem(ProblemCode.INVALID_REQUEST, detail, errors=told)
