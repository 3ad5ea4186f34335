"""Errors of the clients and commands. Each message is a sentence for the sender of the task."""

from typing import Any

from producer.models import TaskView

CLOSED = "this client was closed; make another one"


class ProducerError(Exception):
    """Base of this package's errors."""


class BadInput(ProducerError):
    """An argument or a file cannot be used; the message says why, and what to give instead."""


class GatewayUnreachable(ProducerError):
    """Nothing answers at the gateway's address, or something that is not a gateway."""


class BrokerUnreachable(ProducerError):
    """The broker did not take the tasks in time. Some may have arrived: send them again with the same ids."""


class NoGateway(ProducerError):
    """The call needs the gateway, and the client was made without its address."""


class Refused(ProducerError):
    """The gateway answered with a problem. `code` is stable; `errors` names the fields at fault."""

    def __init__(self, status: int, code: str, message: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors or []


def refusal(problem: dict[str, Any]) -> Refused:
    """The gateway's problem document as an error."""
    detail = str(problem.get("detail", "the gateway refused it"))
    return Refused(int(problem["status"]), str(problem["code"]), detail, problem.get("errors"))


class SomeRefused(ProducerError):
    """Of many tasks some were refused; the others are queued.

    `ids` are the ids of all tasks in their order; `refused` has the refusals by position, from 0.
    """

    def __init__(self, ids: list[str], refused: dict[int, Refused]) -> None:
        first = min(refused)
        super().__init__(
            f"{len(refused)} of {len(ids)} tasks were refused, the others are queued; "
            f"the first that was refused is task {first + 1} of them, tasks[{first}]: {refused[first]}"
        )
        self.ids = ids
        self.refused = refused


class NotAllSent(ProducerError):
    """Sending many tasks broke off; the cause is its `__cause__`.

    `ids` are the ids of the tasks that were read until then, in their order (empty for one without). Those at the
    positions in `accepted` are queued; those at `unsure` were being sent and may be; `refused` has the refusals by
    position. Sent again with these ids, no task runs twice.
    """

    def __init__(
        self, cause: ProducerError, ids: list[str], accepted: set[int], unsure: set[int], refused: dict[int, Refused]
    ) -> None:
        super().__init__(
            f"{cause} Until then {len(accepted)} tasks were queued; whether {len(unsure)} more were is not known. "
            "The error's `ids` tell which: send the others again with them."
        )
        self.ids = ids
        self.accepted = accepted
        self.unsure = unsure
        self.refused = refused

    @property
    def accepted_ids(self) -> list[str]:
        """Ids of the tasks that are queued, in order."""
        return [self.ids[position] for position in sorted(self.accepted)]


class NotFinished(ProducerError, TimeoutError):
    """The time is over and the task has not ended. `view` is its state, or None if the gateway does not know it."""

    def __init__(self, message: str, view: TaskView | None) -> None:
        super().__init__(message)
        self.view = view


class TaskFailed(ProducerError):
    """The task failed or was cancelled. `view.error` has the code and the message of a failed one."""

    def __init__(self, message: str, view: TaskView) -> None:
        super().__init__(message)
        self.view = view
