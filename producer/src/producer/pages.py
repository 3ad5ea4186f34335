"""Lists that come in pages, and calls about many that go out in parts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from producer.dead_filter import DeadLetterFilter
from producer.errors import GatewayUnreachable
from producer.transport import Query, Transport
from runnerlib.contract import DeadLettersDone

#: Entries in one page or one part; the gateway takes and gives no more.
MOST_IN_PAGE = 1000
M = TypeVar("M", bound=BaseModel)
E = TypeVar("E")


def read(model: type[M], content: Any) -> M:
    """The answer in its shape. Raises GatewayUnreachable when it has another."""
    try:
        return model.model_validate(content)
    except ValidationError:
        raise GatewayUnreachable(
            f"the gateway answered with something else than a {model.__name__}; check GATEWAY_URL and its version"
        ) from None


def listed(
    transport: Transport,
    path: str,
    query: Query,
    limit: int | None,
    entries_of: Callable[[Any], tuple[list[E], str | None]],
) -> Iterator[E]:
    """Up to `limit` entries (None: all), asked for as they are taken. A short page may have a next one."""
    query, left = {**query}, limit
    while left is None or left > 0:
        query["limit"] = str(MOST_IN_PAGE if left is None else min(left, MOST_IN_PAGE))
        entries, cursor = entries_of(transport.ask("GET", path, query=query))
        yield from entries
        if cursor is None:
            return
        query["cursor"] = cursor
        left = None if left is None else left - len(entries)


def settled(transport: Transport, path: str, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
    """Replays or discards dead letters; what was done, part by part."""
    if not isinstance(wanted, DeadLetterFilter):
        for start in range(0, len(wanted), MOST_IN_PAGE):
            body: dict[str, Any] = {"ids": list(wanted[start : start + MOST_IN_PAGE])}
            yield read(DeadLettersDone, transport.ask("POST", path, body))
        return
    cursor = None
    while True:
        body = {"filter": wanted.body(), "limit": MOST_IN_PAGE, "cursor": cursor}
        done = read(DeadLettersDone, transport.ask("POST", path, body))
        yield done
        cursor = done.next
        if cursor is None:
            return
