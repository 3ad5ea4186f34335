"""Answers as bytes, put together from results that are JSON already. Pure."""

from collections.abc import Iterable

from pydantic_core import to_json

from runnerlib.contract import EntryState, FailureCode, RunError
from runnerlib.run_table import Run

#: Task ids and states are plain ASCII without quotes: they need no escaping.
_STATES = {state: state.value.encode() for state in EntryState}


def batch(entries: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(entries) + b"]"


def entry(run: Run, *, with_traceback: bool = True) -> bytes:
    """What is known of a run, as a BatchEntry."""
    outcome = run.outcome
    if outcome is not None and outcome.result is not None and outcome.seconds is not None:
        # Nearly all are of this kind.
        return b'{"id":"%s","attempt":%d,"state":"succeeded","result":%s,"seconds":%.6f}' % (
            run.id.encode(),
            run.attempt,
            outcome.result,
            outcome.seconds,
        )
    head = b'{"id":"%s","attempt":%d,"state":"%s"' % (run.id.encode(), run.attempt, _STATES[run.state])
    if outcome is None:
        if run.progress is None:
            return head + b"}"
        fraction, message = run.progress
        return head + b',"progress":' + to_json({"fraction": fraction, "message": message}) + b"}"
    if outcome.result is not None:
        head += b',"result":' + outcome.result
    elif outcome.error is not None:
        head += b',"error":' + error(outcome.error, with_traceback)
    if outcome.seconds is not None:
        head += b',"seconds":%.6f' % outcome.seconds
    return head + b"}"


def bare(id: str, attempt: int, state: EntryState) -> bytes:
    """An entry for a run that this process does not have."""
    return b'{"id":"%s","attempt":%d,"state":"%s"}' % (id.encode(), attempt, _STATES[state])


def refused(id: str, attempt: int, code: FailureCode, message: str) -> bytes:
    """An entry for a run that was never accepted."""
    head = b'{"id":"%s","attempt":%d,"state":"failed","error":' % (id.encode(), attempt)
    return head + error(RunError(code=code.value, message=message), False) + b"}"


def error(run_error: RunError, with_traceback: bool) -> bytes:
    left_out = set() if with_traceback else {"traceback"}
    return run_error.model_dump_json(exclude=left_out, exclude_none=True).encode()


def result(data: bytes) -> bytes:
    """The answer of ``POST /run/{algorithm}``."""
    return b'{"result":' + data + b"}"
