"""What a call consists of: it yields steps, and a client performs them, blocking or on an event loop.

A call is a generator and does no input or output, so each is written once for all clients.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any, TypeVar, get_args

from producer.errors import ProducerError, Refused
from producer.json_text import BadJson, dumps
from producer.models import MAX_MESSAGE_BYTES, new_task_id

#: A task as callers give it: ``("upper", {"text": "a"})``, or a message with `algorithm`, `payload` and more.
TaskInput = tuple[str, Any] | Mapping[str, Any]
#: Fields of a message besides, by name; None: without it.
Fields = Mapping[str, float | str | None]
_FIRST_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 2.0
#: Parameters of a URL's query; one with several values is repeated.
Query = dict[str, str | list[str]]


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """`body` is the caller's message with its id, as JSON on one line."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the gateway. `body` is JSON, or with `is_lines` one JSON value on each line."""

    method: str
    path: str
    body: bytes | None = None
    is_lines: bool = False
    wait_seconds: float = 0
    query: Query | None = None

    @property
    def headers(self) -> dict[str, str]:
        kind = "application/x-ndjson" if self.is_lines else "application/json"
        headers = {} if self.body is None else {"Content-Type": kind}
        return headers | ({"Prefer": f"wait={self.wait_seconds:.3f}"} if self.wait_seconds > 0 else {})


@dataclass(frozen=True, slots=True)
class Publish:
    """Tasks for the broker; the answer is a refusal or None for each."""

    tasks: list[TaskMessage]


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """A value for the caller while the call continues."""

    value: Any


T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Step = Request | Publish | Sleep | Emit
Call = Generator[Step, Any, T]


def run(call: Call[T], perform: Callable[[Any], Any]) -> Generator[Any, None, T]:
    """Performs the steps of a call; yields what it emits and returns its outcome."""
    go_on = partial(next, call)
    while True:
        try:
            step = go_on()
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        if isinstance(step, Emit):
            yield step.value
            go_on = partial(next, call)
            continue
        try:
            go_on = partial(call.send, perform(step))
        except ProducerError as error:
            go_on = partial(call.throw, error)


def outcome_of(call: Call[T], perform: Callable[[Any], Any], on_value: Callable[[Any], None] = lambda _: None) -> T:
    """Performs all steps of a call and returns its outcome; `on_value` sees what it emits."""
    values = run(call, perform)
    while True:
        try:
            on_value(next(values))
        except StopIteration as end:
            outcome: T = end.value
            return outcome


async def outcome_of_async(call: Call[T], perform: Callable[[Any], Awaitable[Any]]) -> T:
    """The same for steps that are awaited; what the call emits is dropped."""
    go_on = partial(next, call)
    while True:
        try:
            step = go_on()
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        try:
            go_on = partial(call.send, None if isinstance(step, Emit) else await perform(step))
        except ProducerError as error:
            go_on = partial(call.throw, error)


def documented_by(call: Callable[..., Call[Any]]) -> Callable[[F], F]:
    """Gives a client's method the name, the docstring and the parameters of a call, as `help` and editors show them."""

    def decorate(method: F) -> F:
        signature = inspect.signature(call)
        _, _, outcome = get_args(signature.return_annotation)
        update_wrapper(method, call).__signature__ = signature.replace(return_annotation=outcome)  # type: ignore[attr-defined]
        return method

    return decorate


def retry_pauses(patience_seconds: float, since: float | None = None) -> Iterator[float]:
    """Growing pauses between attempts, as long as the patience lasts: since then (monotonic), or since the first."""
    end = (time.monotonic() if since is None else since) + patience_seconds
    pause = _FIRST_PAUSE_SECONDS
    while time.monotonic() + pause <= end:
        yield pause
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)


def task_message(given: TaskInput, task_id: str | None = None, fields: Fields | None = None) -> TaskMessage:
    """Writes a task as JSON. Raises Refused for what cannot be sent; the gateway decides on the rest.

    A task without an id gets one here, so that sending it again after a lost connection makes one task. `fields`
    are for messages that do not have them.
    """
    if isinstance(given, Mapping):
        message = dict(given)
    elif isinstance(given, tuple) and len(given) == 2:
        message = {"algorithm": given[0], "payload": given[1]}
    else:
        shape = '("algorithm", payload) or {"algorithm": ..., "payload": ...}'
        raise Refused(400, "malformed", f"a task is given as {shape}, not as {type(given).__name__}")
    if task_id is not None:
        message["id"] = task_id
    message |= {name: value for name, value in (fields or {}).items() if value is not None and name not in message}
    if message.get("id") is None:
        message["id"] = new_task_id()
    body = as_body(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise Refused(
            413,
            "too_large",
            f"the message has {len(body)} bytes, the limit is {MAX_MESSAGE_BYTES}; "
            "store the data elsewhere and send a reference",
        )
    return TaskMessage(str(message["id"]), body)


def as_body(value: Any) -> bytes:
    """The value as JSON. Raises Refused when JSON cannot express it."""
    try:
        return dumps(value)
    except BadJson as error:
        raise Refused(400, "malformed", f"the payload cannot be sent as JSON: {error}") from None
