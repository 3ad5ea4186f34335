"""How our queues and exchanges are called. No algorithm's name can spell a hyphen, so none can take one of these."""

#: The front door (queue), and the exchange our own publishers use.
FRONT_DOOR = "tasks"
TASKS_EXCHANGE = "tasks"
#: Alternate exchange: what no algorithm's queue wants comes to the front door.
UNROUTED_EXCHANGE = "tasks-unrouted"
#: The broker's own dead letters (exchange and queue): a net, not the path.
BROKER_DEAD = "tasks-broker-dead"
#: Waiting time of tasks whose algorithm nobody serves yet, in seconds.
PARK_SECONDS = 5.0


def algorithm_queue(algorithm: str) -> str:
    """The queue of one algorithm's tasks."""
    return f"tasks.{algorithm}"


def delay_queue(seconds: float) -> str:
    """The queue, and the exchange in front of it, where tasks wait for so many seconds."""
    return f"tasks-retry.{seconds:g}s"
