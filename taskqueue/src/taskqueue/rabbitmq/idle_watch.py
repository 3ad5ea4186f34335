"""When a quiet consumer becomes suspect. Pure: times are given.

A consumer may be dead though connection and channel live. One that has room and gets nothing looks at its queue: when
messages are ready there, or the broker knows of no consumer, and it is so again a moment later, it is dead.
"""

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.channel import QueueState

#: How long nothing may come before it looks.
QUIET_SECONDS = 5.0
#: ... and at most, when all was well the times before.
LONGEST_QUIET_SECONDS = 40.0
#: The second look, before it is sure.
SECOND_LOOK_SECONDS = 1.0


class IdleWatch:
    """One channel's."""

    def __init__(self) -> None:
        self._look_at = 0.0
        self._suspect = False
        self._quiet = QUIET_SECONDS

    def stirred(self, now: float) -> None:
        """A message came, or was settled, or the consumer is a new one."""
        self._quiet = QUIET_SECONDS
        self._look_at = now + QUIET_SECONDS
        self._suspect = False

    def look_in(self, now: float) -> float:
        return max(0.0, self._look_at - now)

    def looked(self, state: QueueState, now: float) -> None:
        """Raises QueueUnavailable when it is sure that nothing will come."""
        if self._look_at > now:
            return
        odd = state.messages > 0 or state.consumers == 0
        if odd and self._suspect:
            raise QueueUnavailable(
                f"{state.messages} messages are ready in {state.name} and none comes (consumers there: "
                f"{state.consumers})"
            )
        self._suspect = odd
        # A thousand idle algorithms must not ask the broker all the time.
        self._quiet = min(LONGEST_QUIET_SECONDS, self._quiet * 2)
        self._look_at = now + (SECOND_LOOK_SECONDS if odd else self._quiet)
