"""A task's texts in messages and databases: what a message property and a column can carry."""

from collections.abc import Sequence

from pydantic import TypeAdapter

from runnerlib.contract import HistoryEntry, strict_json
from taskqueue.tasks import Delivery

_HISTORY: TypeAdapter[tuple[HistoryEntry, ...]] = TypeAdapter(tuple[HistoryEntry, ...])

#: What AMQP carries in a property of text.
MOST_PROPERTY_BYTES = 255


def fits_property(text: str | None) -> bool:
    """Whether a message property can carry the text.

    Received values can exceed the limit after lossy decoding; they were not valid UTF-8.
    """
    return text is None or len(text.encode(errors="replace")) <= MOST_PROPERTY_BYTES


def original(delivery: Delivery) -> bytes:
    """The message as its sender wrote it, or as a producer would write it if that is not known."""
    if delivery.body is not None:
        return delivery.body
    group = {} if delivery.group is None else {"group": delivery.group}
    head = strict_json.dumps({"id": delivery.id, "algorithm": delivery.algorithm, **group})
    return head[:-1] + b',"payload":' + delivery.payload + b"}"


def parse_history(text: str | None) -> tuple[HistoryEntry, ...]:
    return _HISTORY.validate_json(text) if text else ()


def dump_history(history: Sequence[HistoryEntry]) -> str | None:
    return clean(_HISTORY.dump_json(tuple(history)).decode()) if history else None


def clean(text: str) -> str:
    """Text that every database stores: no NUL (PostgreSQL refuses it), no lone surrogate (it cannot be encoded)."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def clean_or_none(text: str | None) -> str | None:
    return None if text is None else clean(text)
