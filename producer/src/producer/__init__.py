"""Submits tasks: a Python client, a command line, and an HTTP gateway.

from producer import TaskClient
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.task_client import TaskClient

__all__ = ["TaskClient"]


def __getattr__(name: str) -> object:
    """The client is loaded when it is asked for: the gateway's processes need nothing of it."""
    if name == "TaskClient":
        from producer.task_client import TaskClient

        return TaskClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
