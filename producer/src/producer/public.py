"""What ``from producer import ...`` gives; a test guards the list."""

from producer.client import GatewayClient
from producer.dead_filter import DeadLetterFilter
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
    DeadLettersDone,
    DeadLetterView,
    FailureCode,
    TaskState,
    TaskSummaryView,
    TaskView,
)
from producer.task_client import TaskClient

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
