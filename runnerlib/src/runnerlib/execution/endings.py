"""Words and outcomes for runs that did not end by themselves. Pure."""

import signal
from dataclasses import dataclass

from runnerlib.contract import EntryState, FailureCode, RunError
from runnerlib.frames import CONNECTION_LOST
from runnerlib.run_table import Outcome

CANCELLED = Outcome(EntryState.CANCELLED)


@dataclass(frozen=True)
class Death:
    """What is known of the end of a worker process."""

    returncode: int
    #: it lived on without its connection, and was killed for it
    is_cut_off: bool = False
    #: whether the kernel killed anything in reach for lack of memory meanwhile; None where it does not tell
    memory_ran_out: bool | None = None


def expired() -> Outcome:
    return failed(FailureCode.EXPIRED, "the task's deadline passed before it could start")


def timed_out(timeout_seconds: float, seconds: float) -> Outcome:
    message = f"the handler took longer than timeout_seconds ({timeout_seconds:g} s) and was stopped"
    return failed(FailureCode.TIMEOUT, message, retryable=True, seconds=seconds)


def past_deadline(seconds: float) -> Outcome:
    message = f"the task's deadline passed while the handler ran; it was stopped after {seconds:.1f} s"
    return failed(FailureCode.TIMEOUT, message, retryable=True, seconds=seconds)


def lost(death: Death, seconds: float) -> Outcome:
    message = f"the worker process {how_it_ended(death)} while it ran this task"
    return failed(FailureCode.RUNNER_LOST, message, retryable=True, seconds=seconds)


def cancelled_itself() -> Outcome:
    message = "CancelledError: the handler cancelled its own asyncio task, or all tasks of the loop"
    return failed(FailureCode.HANDLER_ERROR, message)


def failed(code: FailureCode, message: str, retryable: bool = False, seconds: float | None = None) -> Outcome:
    error = RunError(code=code.value, message=message, retryable=retryable)
    return Outcome(EntryState.FAILED, error=error, seconds=seconds)


def how_it_ended(death: Death) -> str:
    """``exited with code 1``, or ``was killed by SIGSEGV``."""
    if death.is_cut_off or death.returncode == CONNECTION_LOST:
        return (
            "lost its connection to the runner (code does this that closes descriptors which it did not open, "
            "or replaces Python's sockets, as gevent does) and was ended"
        )
    if death.returncode >= 0:
        return f"exited with code {death.returncode}"
    try:
        name = signal.Signals(-death.returncode).name
    except ValueError:
        name = f"signal {-death.returncode}"
    return f"was killed by {name}" if name != "SIGKILL" else f"was killed by SIGKILL ({_by_whom(death)})"


def _by_whom(death: Death) -> str:
    """Ours are not told here: whatever this runner kills has an outcome before."""
    if death.memory_ran_out is None:
        return "not by this runner; if memory is short, the kernel did it"
    if death.memory_ran_out:
        return "not by this runner; meanwhile the kernel killed something for lack of memory, perhaps this process"
    return "not by this runner; meanwhile the kernel counted no kill for lack of memory"
