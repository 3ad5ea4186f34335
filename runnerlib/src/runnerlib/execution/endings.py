"""Words and outcomes for runs that did not end by themselves. Pure."""

import signal

from runnerlib.contract import EntryState, FailureCode, RunError
from runnerlib.run_table import Outcome

CANCELLED = Outcome(EntryState.CANCELLED)


def expired() -> Outcome:
    return failed(FailureCode.EXPIRED, "the task's deadline passed before it could start")


def timed_out(timeout_seconds: float, seconds: float) -> Outcome:
    message = f"the handler took longer than timeout_seconds ({timeout_seconds:g} s) and was stopped"
    return failed(FailureCode.TIMEOUT, message, retryable=True, seconds=seconds)


def past_deadline(seconds: float) -> Outcome:
    message = f"the task's deadline passed while the handler ran; it was stopped after {seconds:.1f} s"
    return failed(FailureCode.TIMEOUT, message, retryable=True, seconds=seconds)


def lost(returncode: int, seconds: float) -> Outcome:
    message = f"the worker process {how_it_ended(returncode)} while it ran this task"
    return failed(FailureCode.RUNNER_LOST, message, retryable=True, seconds=seconds)


def cancelled_itself() -> Outcome:
    message = "CancelledError: the handler cancelled its own asyncio task, or all tasks of the loop"
    return failed(FailureCode.HANDLER_ERROR, message)


def failed(code: FailureCode, message: str, retryable: bool = False, seconds: float | None = None) -> Outcome:
    error = RunError(code=code.value, message=message, retryable=retryable)
    return Outcome(EntryState.FAILED, error=error, seconds=seconds)


def how_it_ended(returncode: int) -> str:
    """``exited with code 1``, or ``was killed by SIGSEGV``."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if name == "SIGKILL":
        return "was killed by SIGKILL (probably out of memory)"
    return f"was killed by {name}"
