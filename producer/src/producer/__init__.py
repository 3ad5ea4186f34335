"""Submits tasks: a Python client, a command line, and an HTTP gateway.

from producer import TaskClient
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.public import (
        BrokerUnreachable,
        DeadLetterFilter,
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
    )

__all__ = [
    "BrokerUnreachable",
    "DeadLetterFilter",
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
]


def __getattr__(name: str) -> object:
    """The clients are loaded when they are asked for: the gateway's processes need nothing of them."""
    if name in __all__:
        from producer import public

        return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
