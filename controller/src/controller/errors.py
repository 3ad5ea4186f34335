"""What can go wrong between the controller and a runner; `controller.outcomes` says what follows."""

from runnerlib.contract import Problem


class ControllerError(Exception):
    """Base of this package's errors."""


class RunnerError(ControllerError):
    """A call to a runner gave no outcome. `boot` is the process that answered, if one did."""

    def __init__(self, message: str, *, boot: str | None = None) -> None:
        super().__init__(message)
        self.boot = boot


class NotSent(RunnerError):
    """The runner was never reached: no run of the call can have started."""


class LostAfterSending(RunnerError):
    """The connection ended after the call was sent: its runs may have started."""


class NoRoomForAnswer(LostAfterSending):
    """The runner answered, and there was no room for its answer; it can be asked again."""


class TimedOut(LostAfterSending):
    """No answer in time."""


class Busy(RunnerError):
    """No free slot (429)."""

    def __init__(self, message: str, retry_after_seconds: float, *, boot: str | None = None) -> None:
        super().__init__(message, boot=boot)
        self.retry_after_seconds = retry_after_seconds


class Draining(RunnerError):
    """The runner is about to stop, or is not ready, and accepts nothing new (503)."""


class Refused(RunnerError):
    """The runner refused the call, with a reason."""

    def __init__(self, problem: Problem, *, boot: str | None = None) -> None:
        super().__init__(problem.detail, boot=boot)
        self.problem = problem

    @property
    def is_retryable(self) -> bool:
        return bool((self.problem.model_extra or {}).get("retryable") is True)


class BadAnswer(RunnerError):
    """The answer violates the contract, or is too large.

    `would_repeat`: the runner would answer the same again, e.g. with a result that is too large. Otherwise the answer
    may have been garbled on the way, or something else answered at the runner's address.
    """

    def __init__(self, message: str, *, boot: str | None = None, would_repeat: bool = False) -> None:
        super().__init__(message, boot=boot)
        self.would_repeat = would_repeat


class RunnerLost(ControllerError):
    """The process that had these runs is gone, and the runs with it."""
