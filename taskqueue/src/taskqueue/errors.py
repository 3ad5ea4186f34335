"""The errors of queues and stores. No caller sees errors of SQLAlchemy or pika."""


class TaskQueueError(Exception):
    """Base of this package's errors."""


class QueueUnavailable(TaskQueueError):
    """The queue cannot be reached or is full; try again later. A publish that raised may still have arrived."""


class StoreUnavailable(TaskQueueError):
    """The store cannot be reached; nothing may be acknowledged meanwhile."""


class OwnedElsewhere(TaskQueueError):
    """Another process owns the SQLite file."""


class QueueClosed(TaskQueueError):
    """The feed or the queue was closed, maybe while `take` waited."""


class UnsuitableFile(TaskQueueError):
    """The SQLite file cannot be used: a network filesystem, or a newer version wrote it that is not compatible."""


class UnsuitableAddress(TaskQueueError):
    """QUEUE_URL and DATABASE_URL do not go together, or cannot be used. Its text says what to set."""
