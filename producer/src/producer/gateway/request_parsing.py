"""Reads requests, or refuses them with a message that names what is wrong."""

import re
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar, get_origin

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response

from producer.gateway.error_messages import MAX_SHOWN, FieldError, field_path, in_one_line
from producer.gateway.problem_codes import ProblemCode
from runnerlib.contract import StrictJsonError, is_task_id, near_names, strict_json
from runnerlib.service.body_budget import parsed
from runnerlib.service.web import ProblemError

JSON = "application/json"
NDJSON = "application/x-ndjson"

#: Longer waits are cut to this: proxies and clients give up on silent connections.
MAX_WAIT_SECONDS = 60.0

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9}(?:\.\d{1,6})?)"?\s*(?:$|[,;])', re.IGNORECASE)
_MAX_ERRORS = 20
_PARAMETER = "parameter"
_FIELD = "field"

M = TypeVar("M", bound=BaseModel)


class KnownQueryRoute(APIRoute):
    """Refuses query parameters that are not in its OpenAPI operation: a misspelt one would have no effect."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        documented = (self.openapi_extra or {}).get("parameters", ())
        known = [parameter["name"] for parameter in documented if parameter["in"] == "query"]

        async def checked(request: Request) -> Response:
            unknown = [name for name in request.query_params if name not in known]
            if unknown:
                raise _invalid([FieldError(name[:MAX_SHOWN], _unknown(name, known, _PARAMETER)) for name in unknown])
            return await handle(request)

        return checked


def problem(
    code: ProblemCode,
    detail: str,
    errors: list[dict[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemError:
    """To be raised in a route; `detail` is a sentence that says what to do."""
    return ProblemError(code.status, code.value, detail, headers, errors)


def wait_seconds(request: Request) -> float | None:
    """From ``Prefer: wait=20`` (RFC 7240); None without it. What is not understood is ignored, as the RFC says."""
    found = _WAIT.search(request.headers.get("prefer", ""))
    return min(float(found.group(1)), MAX_WAIT_SECONDS) if found else None


def require_type(request: Request, *wanted: str) -> str:
    """Without asking us first, a browser lets a page of another site send any content type but JSON."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given in wanted:
        return given
    detail = f"Send the body with the header 'Content-Type: {wanted[0]}'."
    raise problem(ProblemCode.UNSUPPORTED_MEDIA_TYPE, detail)


def task_id_of(request: Request) -> str:
    """The task id in the path."""
    task_id = request.path_params["task_id"]
    if not is_task_id(task_id):
        raise problem(ProblemCode.INVALID_ID, "A task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return str(task_id)


def idempotency_key_of(request: Request) -> str | None:
    """The Idempotency-Key; it may be quoted (it is a structured header)."""
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    key = header.strip().strip('"')
    if not is_task_id(key):
        detail = "An Idempotency-Key serves as the task's id here: 1 to 128 of A-Z a-z 0-9 . _ : -"
        raise problem(ProblemCode.INVALID_ID, detail)
    return key


def query_of(request: Request, model: type[M]) -> M:
    """The query as a `model`. Parameters that the model does not declare are refused."""
    pairs = request.query_params.multi_items()
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1 and name not in lists]
    if repeated:
        raise _invalid([FieldError(name, "is given more than once") for name in repeated])
    return _validated(model, values, _PARAMETER)


async def body_of(request: Request, choices: dict[str, type[M]]) -> M:
    """A JSON object with exactly one of the `choices`' keys, as the model of that key."""
    require_type(request, JSON)
    try:
        parse = partial(strict_json.loads, max_values=strict_json.MAX_VALUES)
        value = await parsed(await request.body(), parse)
    except StrictJsonError as error:
        raise problem(ProblemCode.MALFORMED, f"The body is {error}.") from None
    keys = [key for key in choices if isinstance(value, dict) and key in value]
    if len(keys) != 1:
        names = " or ".join(map(repr, choices))
        raise _invalid([FieldError("body", f"must be an object with either {names}")])
    return _validated(choices[keys[0]], value, _FIELD)


def _validated(model: type[M], values: dict[str, Any], what: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise _invalid([_field_error(one, model, what) for one in found]) from None


def _field_error(error: ErrorDetails, model: type[BaseModel], what: str) -> FieldError:
    # a parameter that may be given more than once is named without its position
    field = field_path(part for part in error["loc"] if what == _FIELD or isinstance(part, str)) or "body"
    if error["type"] == "extra_forbidden":
        return FieldError(field, _unknown(str(error["loc"][-1]), _fields_at(error["loc"][:-1], model), what))
    message = re.sub("^(Input|String|List|Datetime) should ", "must ", error["msg"].removeprefix("Value error, "))
    return FieldError(field, message[:300])


def _fields_at(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The known fields of the object at `loc`."""
    for part in loc:
        inner = model.model_fields[str(part)].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _unknown(name: str, known: list[str], what: str) -> str:
    near = near_names(name[:MAX_SHOWN], known)
    if near:
        return f"is not a {what} here; did you mean {near[0]!r}?"
    return f"is not a {what} here; there are {', '.join(known) or 'none'}"


def _invalid(errors: list[FieldError]) -> ProblemError:
    listed = [asdict(error) for error in errors[:_MAX_ERRORS]]
    return problem(ProblemCode.INVALID_REQUEST, in_one_line(errors), listed)
