"""A task as a message."""

from runnerlib.contract import strict_json
from taskqueue.tasks import Delivery

#: What AMQP carries in a property of text.
MOST_PROPERTY_BYTES = 255


def fits_property(text: str | None) -> bool:
    """Whether a message can carry it. One that came and does not fit was no text: reading it made it longer."""
    return text is None or len(text.encode(errors="replace")) <= MOST_PROPERTY_BYTES


def original(delivery: Delivery) -> bytes:
    """The message as its sender wrote it, or as a producer would write it."""
    if delivery.body is not None:
        return delivery.body
    head = strict_json.dumps({"id": delivery.id, "algorithm": delivery.algorithm})
    return head[:-1] + b',"payload":' + delivery.payload + b"}"
