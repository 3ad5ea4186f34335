"""A task as a message."""

from runnerlib.contract import strict_json
from taskqueue.tasks import Delivery


def original(delivery: Delivery) -> bytes:
    """The message as its sender wrote it, or as a producer would write it."""
    if delivery.body is not None:
        return delivery.body
    head = strict_json.dumps({"id": delivery.id, "algorithm": delivery.algorithm})
    return head[:-1] + b',"payload":' + delivery.payload + b"}"
