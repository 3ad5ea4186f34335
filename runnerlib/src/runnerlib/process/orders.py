"""What a worker process is asked to do and how it answers, read from and written as frames."""

import os
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runnerlib.adapter.errors import clean
from runnerlib.adapter.model import Algorithm
from runnerlib.adapter.session import Task
from runnerlib.adapter.values import classify, read_arguments
from runnerlib.contract import FailureCode, RunError
from runnerlib.frames import encode_raw
from runnerlib.process.channel import Channel, ProgressReports
from runnerlib.service.logs import get_logger

log = get_logger("runnerlib.process")

_STATM = Path("/proc/self/statm")
_MAX_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True)
class Order:
    """One call: the runs that it does, in order. `ends_at` on this process's monotonic clock."""

    call: int
    algorithm: str
    batch: bool
    ids: list[tuple[str, int]]
    ends_at: list[float | None]
    payloads: list[bytes]


def read_order(header: dict[str, Any], body: bytes) -> Order:
    now = time.monotonic()
    ids, ends_at, payloads, start = [], [], [], 0
    for id, attempt, seconds_left, length in header["runs"]:
        ids.append((id, attempt))
        ends_at.append(None if seconds_left is None else now + seconds_left)
        payloads.append(body[start : start + length])
        start += length
    return Order(header["call"], header["algorithm"], header["batch"], ids, ends_at, payloads)


class Cancelled:
    """Which runs were cancelled; filled by the reading thread, asked by handlers."""

    def __init__(self) -> None:
        self._runs: set[tuple[int, int]] = set()

    def add(self, call: int, at: int) -> None:
        self._runs.add((call, at))

    def has(self, call: int, at: int) -> bool:
        return (call, at) in self._runs

    def forget(self, call: int) -> None:
        if self._runs:
            self._runs = {run for run in self._runs if run[0] != call}


class LiveTask(Task):
    """A task whose progress goes out through the channel."""

    def __init__(self, channel: Channel, cancelled: Cancelled, order: Order, at: int) -> None:
        id, attempt = order.ids[at]
        ends_at = order.ends_at[at]
        left = None if ends_at is None else ends_at - time.monotonic()
        super().__init__(id, attempt, left, self._send_progress, partial(cancelled.has, order.call, at))
        self._channel = channel
        self._place = (order.call, at)
        self._reports: ProgressReports | None = None

    def _send_progress(self, fraction: float, message: str) -> None:
        if self._reports is None:
            self._reports = ProgressReports(self._channel, *self._place)
        self._reports.report(fraction, clean(message[:_MAX_MESSAGE_CHARACTERS]))

    def close(self) -> None:
        super().close()
        if self._reports is not None:
            self._reports.close()


def read_members(algorithm: Algorithm, order: Order) -> tuple[list[int], list[dict[str, Any]], bytes]:
    """The members of a batch that can be called, with their arguments, and the outcomes of those that cannot."""
    members, arguments, frames = [], [], []
    for at, payload in enumerate(order.payloads):
        started = time.monotonic()
        try:
            arguments.append(read_arguments(algorithm, payload))
            members.append(at)
        except BaseException as error:  # the outermost level for this member: its neighbours are called
            failure = failure_of(error, algorithm, order.ids[at][0])
            frames.append(failed(order.call, at, time.monotonic() - started, failure))
    return members, arguments, b"".join(frames)


def failure_of(error: BaseException, algorithm: Algorithm, id: str) -> RunError:
    """What the caller is told; the log gets the traceback."""
    failure = classify(error, algorithm.options)
    if failure.code == FailureCode.INVALID_PAYLOAD.value:
        log.info("a payload does not fit", algorithm=algorithm.name, task_id=id, error=failure.message)
        return failure
    log.warning(
        "a handler failed",
        algorithm=algorithm.name,
        task_id=id,
        code=failure.code,
        error=failure.message,
        traceback=failure.traceback,
    )
    return failure


EXPIRED = RunError(code=FailureCode.EXPIRED.value, message="the task's deadline passed before it could start")


def succeeded(call: int, at: int, seconds: float, result: bytes) -> bytes:
    return encode_raw(
        b'{"kind":"outcome","call":%d,"at":%d,"state":"succeeded","seconds":%.6f}' % (call, at, seconds), result
    )


def failed(call: int, at: int, seconds: float, error: RunError) -> bytes:
    header = b'{"kind":"outcome","call":%d,"at":%d,"state":"failed","seconds":%.6f}' % (call, at, seconds)
    return encode_raw(header, error.model_dump_json().encode())


def cancelled(call: int, at: int, seconds: float) -> bytes:
    return encode_raw(b'{"kind":"outcome","call":%d,"at":%d,"state":"cancelled","seconds":%.6f}' % (call, at, seconds))


def batch_failed(call: int, error: RunError) -> bytes:
    """The batched twin failed as a whole: its members will run again, singly."""
    return encode_raw(b'{"kind":"batch_failed","call":%d}' % call, error.model_dump_json().encode())


def interrupted(call: int) -> bytes:
    """The call was cancelled, but not by the serving process: perhaps by another handler on the same loop."""
    return encode_raw(b'{"kind":"interrupted","call":%d}' % call)


def done(call: int, rss_bytes: int) -> bytes:
    """The call is over; the process can take another one."""
    return encode_raw(b'{"kind":"done","call":%d,"rss":%d}' % (call, rss_bytes))


def rss_bytes() -> int:
    """Memory of this process now; where the system does not tell, its highest so far."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
