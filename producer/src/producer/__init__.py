"""Submits tasks: a Python client, a command line, and an HTTP gateway.

from producer import TaskClient
"""

from typing import TYPE_CHECKING

from producer.errors import (
    BrokerUnreachable,
    GatewayUnreachable,
    NoGateway,
    NotAllSent,
    NotFinished,
    ProducerError,
    Refused,
    SomeRefused,
    TaskFailed,
)
from producer.models import (
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLettersDone,
    DeadLetterView,
    FailureCode,
    TaskState,
    TaskSummaryView,
    TaskView,
)

if TYPE_CHECKING:
    from producer.client.aio import AsyncTaskClient as AsyncTaskClient
    from producer.client.client import GatewayClient, TaskClient

__all__ = [
    "BrokerUnreachable",
    "DeadLetterDetail",
    "DeadLetterFilter",
    "DeadLetterView",
    "DeadLettersDone",
    "FailureCode",
    "GatewayClient",
    "GatewayUnreachable",
    "NoGateway",
    "NotAllSent",
    "NotFinished",
    "ProducerError",
    "Refused",
    "SomeRefused",
    "TaskClient",
    "TaskFailed",
    "TaskState",
    "TaskSummaryView",
    "TaskView",
]


def __getattr__(name: str) -> object:
    """Loads a client when it is asked for: the gateway's processes use none, and need not have `requests`."""
    if name in ("GatewayClient", "TaskClient"):
        from producer.client import client

        return getattr(client, name)
    if name == "AsyncTaskClient":
        try:
            from producer.client.aio import AsyncTaskClient
        except ModuleNotFoundError as error:
            raise ImportError(
                f"AsyncTaskClient needs more packages ({error.name} is missing); from a checkout: "
                "pip install './producer[async]'"
            ) from None
        return AsyncTaskClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
