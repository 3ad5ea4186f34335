"""Outcomes of runs that did not end by themselves, and what the death of a worker process means for its runs. Pure."""

import signal
from dataclasses import dataclass
from enum import Enum

from runnerlib.contract import EntryState, FailureCode, RunError
from runnerlib.frames import CONNECTION_LOST
from runnerlib.run_registry import Outcome

CANCELLED = Outcome(EntryState.CANCELLED)


@dataclass(frozen=True)
class Death:
    """How a worker process ended."""

    returncode: int
    #: It had closed its connection without exiting, and was killed for that.
    is_cut_off: bool = False
    #: Whether the kernel killed a process for lack of memory meanwhile; None where it does not report that.
    memory_ran_out: bool | None = None


class Fate(Enum):
    """What happens to the unfinished runs of a call whose worker process ended."""

    #: The current run fails as ``runner_lost``; those behind it run again.
    LOST = "lost"
    #: All of them run again; the attempt is not counted.
    AGAIN = "again"
    #: The same, but each alone in its process, so that another death shows which run caused it.
    ISOLATED = "isolated"


def fate_of(*, killed: bool, killed_for_batch: bool, has_culprit: bool) -> Fate:
    """Decides what a death costs one of the calls that were in the process.

    =================================================  ==========
    the process was killed by this runner ...
    - because of this call, a batch                    ISOLATED
    - because of another call, run, or a stop          AGAIN
    the process died by itself ...
    - and only the current run of this call can be     LOST
      the cause (`has_culprit`)
    - while it ran a batch, or other calls too         ISOLATED
    =================================================  ==========
    """
    if killed:
        return Fate.ISOLATED if killed_for_batch else Fate.AGAIN
    return Fate.LOST if has_culprit else Fate.ISOLATED


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
    return f"was killed by {name}" if name != "SIGKILL" else f"was killed by SIGKILL ({_killed_by(death)})"


def _killed_by(death: Death) -> str:
    """Never this runner: the runs of a process that it kills have an outcome already, or run again."""
    if death.memory_ran_out is None:
        return "not by this runner; if memory is short, the kernel did it"
    if death.memory_ran_out:
        return "not by this runner; meanwhile the kernel killed something for lack of memory, perhaps this process"
    return "not by this runner; meanwhile the kernel counted no kill for lack of memory"
