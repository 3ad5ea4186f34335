"""Frames between the serving process and a worker process: a head of fixed size, then as many bytes as it says.

Both are of one version, so the format may change at any time. Nothing in it is JSON but some bodies: one task of
microseconds makes two frames' worth of work.
"""

import struct

#: Kinds of frames. To the worker process: the :class:`~runnerlib.execution.pool.ProcessSetup` as JSON,
SETUP = 1
#: runs to do (see :meth:`runnerlib.execution.work_queue.Call.frame`),
CALL = 2
#: a run of a call that is to stop,
CANCEL = 3
#: and that no more calls will follow.
STOP = 4
#: From the worker process: it has loaded,
READY = 5
#: or could not, for the reason in the body.
LOAD_FAILED = 6
#: How a run ended, after `value` seconds: with a result, with a RunError as JSON, or cancelled.
SUCCEEDED = 7
FAILED = 8
CANCELLED = 9
#: How far a run is: the fraction is the `value`, the message the body.
PROGRESS = 10
#: The batch handler failed as a whole, with the RunError in the body: its members will run again, one by one.
BATCH_FAILED = 11
#: The call was cancelled, but not by the serving process: perhaps by another handler on the same loop.
INTERRUPTED = 12
#: The call is over, and the process can take another one; `value` is its memory in bytes if that is watched.
DONE = 13

#: Kind, number of the call, index of the run in the call, value, body.
Frame = tuple[int, int, int, float, bytes]
#: The same with the length of the body, in network order.
_HEAD = struct.Struct("!BQIdI")
#: More than any payload, result or log line; a longer frame means that the stream is out of step.
MAX_FRAME_BYTES = 256 * 1024 * 1024
#: The exit code of a worker process that lost its connection to the serving process.
CONNECTION_LOST = 253


class FrameError(Exception):
    """The bytes are not frames, e.g. because other code wrote into the socket."""


def encode(kind: int, call: int = 0, at: int = 0, value: float = 0.0, body: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEAD.pack(kind, call, at, value, len(body)) + body


class FrameReader:
    """Splits a stream of bytes into frames, whatever the sizes of its chunks."""

    def __init__(self) -> None:
        self._pending = bytearray()
        #: Bytes that must be pending before the next frame can be complete.
        self._wanted = _HEAD.size

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises FrameError."""
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return []
            data = bytes(self._pending)
        frames: list[Frame] = []
        body, have = _HEAD.size, len(data)
        self._wanted = _HEAD.size
        while body <= have:
            kind, call, at, value, size = _HEAD.unpack_from(data, body - _HEAD.size)
            if size > MAX_FRAME_BYTES or not SETUP <= kind <= DONE:
                raise FrameError(f"a frame of kind {kind} and {size} bytes")
            end = body + size
            if end > have:
                self._wanted = _HEAD.size + size
                break
            frames.append((kind, call, at, value, data[body:end]))
            body = end + _HEAD.size
        self._pending = bytearray(data[body - _HEAD.size :])
        return frames
