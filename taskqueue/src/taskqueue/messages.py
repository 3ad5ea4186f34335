"""A task as a message."""

from runnerlib.contract import strict_json
from taskqueue.tasks import Delivery


def envelope(delivery: Delivery) -> bytes:
    """The message as a producer would write it."""
    head = strict_json.dumps({"id": delivery.id, "algorithm": delivery.algorithm})
    return head[:-1] + b',"payload":' + delivery.payload + b"}"
