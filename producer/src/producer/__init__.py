"""Submits tasks: a Python client, a command line, and an HTTP gateway.

from producer import TaskClient
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.async_client import AsyncTaskClient as AsyncTaskClient
    from producer.public import (
        BrokerUnreachable,
        DeadLetterDetail,
        DeadLetterFilter,
        DeadLettersDone,
        DeadLetterView,
        FailureCode,
        GatewayClient,
        GatewayUnreachable,
        NoGateway,
        NotAllSent,
        NotFinished,
        ProducerError,
        Refused,
        SomeRefused,
        TaskClient,
        TaskFailed,
        TaskState,
        TaskSummaryView,
        TaskView,
    )

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
    """The clients are loaded when they are asked for: the gateway's processes need nothing of them."""
    if name in __all__:
        from producer import public

        return getattr(public, name)
    if name == "AsyncTaskClient":
        try:
            from producer.async_client import AsyncTaskClient
        except ModuleNotFoundError as error:
            raise ImportError(
                f"AsyncTaskClient needs more packages ({error.name} is missing); from a checkout: "
                "pip install './producer[async]'"
            ) from None
        return AsyncTaskClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
