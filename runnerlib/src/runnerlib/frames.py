"""Frames between the serving process and a worker process: a head of fixed size, then as many bytes as it says.

Both are of one version, so the format may change at any time. The head is no JSON: reading and writing that took longer
than a short handler.
"""

import struct

# Kinds of frames. No text begins with one of these bytes.
# To the worker process:
#: What it is to load: :class:`runnerlib.execution.pool.ProcessSetup` as JSON.
SETUP = 0x81
#: Runs to do; :meth:`runnerlib.execution.work_queue.Call.frame` has the body.
CALL = 0x82
#: One run is to stop.
CANCEL = 0x83
#: No more calls follow.
STOP = 0x84
# From the worker process:
#: It has loaded,
READY = 0x85
#: or it could not, for the reason in the body.
LOAD_FAILED = 0x86
#: A run ended after `value` seconds: with a result,
SUCCEEDED = 0x87
#: with an error, a RunError as JSON,
FAILED = 0x88
#: or because it was cancelled.
CANCELLED = 0x89
#: How far a run is: `value` is the fraction, the body a message.
PROGRESS = 0x8A
#: The batch handler failed as a whole, with the RunError in the body: its members will run again, one by one.
BATCH_FAILED = 0x8B
#: The call was cancelled, but not by the serving process: perhaps by another handler on the same loop.
INTERRUPTED = 0x8C
#: The call is over, and the process can take another one; `value` is its memory in bytes if that is watched.
DONE = 0x8D

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
        start, have = 0, len(data)
        self._wanted = _HEAD.size
        while start < have:
            if not SETUP <= data[start] <= DONE:
                raise FrameError(f"a frame of kind {data[start]}")
            body = start + _HEAD.size
            if body > have:
                break
            kind, call, at, value, size = _HEAD.unpack_from(data, start)
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {size} bytes")
            if body + size > have:
                self._wanted = _HEAD.size + size
                break
            start = body + size
            frames.append((kind, call, at, value, data[body:start]))
        self._pending = bytearray(data[start:])
        return frames
