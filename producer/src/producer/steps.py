"""Steps of a call, and who does them: written once, a call serves blocking clients and those of asyncio."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from producer.errors import ProducerError
from producer.outgoing import Outgoing

#: Parameters behind the question mark; one with several values is given several times.
Query = dict[str, str | list[str]]


@dataclass(frozen=True, slots=True)
class Ask:
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
class Pause:
    """Nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Publish:
    """Tasks for the broker; the answer is a refusal or None for each."""

    tasks: list[Outgoing]


@dataclass(frozen=True, slots=True)
class Found:
    """Something for the caller, while the call goes on."""

    value: Any


T = TypeVar("T")
Step = Ask | Pause | Publish | Found
Call = Generator[Step, Any, T]


def perform(call: Call[T], do: Callable[[Any], Any]) -> Generator[Any, None, T]:
    """Does the steps of a call; yields what it finds, returns its outcome."""
    advance: Callable[[], Step] = partial(next, call)
    while True:
        try:
            step = advance()
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        if isinstance(step, Found):
            yield step.value
            advance = partial(next, call)
            continue
        try:
            answer = do(step)
        except ProducerError as error:
            advance = partial(call.throw, error)
        else:
            advance = partial(call.send, answer)


def outcome_of(call: Call[T], do: Callable[[Any], Any], on_found: Callable[[Any], None] = lambda _: None) -> T:
    """The outcome of a call, when all its steps are done."""
    found = perform(call, do)
    while True:
        try:
            on_found(next(found))
        except StopIteration as end:
            outcome: T = end.value
            return outcome


async def perform_async(call: Call[T], do: Callable[[Any], Awaitable[Any]]) -> T:
    """The same for whoever awaits the steps."""
    advance: Callable[[], Step] = partial(next, call)
    while True:
        try:
            step = advance()
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        try:
            answer = None if isinstance(step, Found) else await do(step)
        except ProducerError as error:
            advance = partial(call.throw, error)
        else:
            advance = partial(call.send, answer)
