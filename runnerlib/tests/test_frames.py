"""Frames survive any chopping of the stream."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerlib.frames import DONE, MAX_FRAME_BYTES, SETUP, Frame, FrameError, FrameReader, encode

FRAMES = st.tuples(
    st.integers(SETUP, DONE),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=50),
)
HEAD = struct.Struct("!BQIdI")


@given(st.lists(FRAMES, max_size=6), st.data())
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(frames: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(*frame) for frame in frames)
    reader, got, start = FrameReader(), [], 0
    while start < len(stream):
        size = data.draw(st.integers(1, len(stream) - start))
        got += reader.feed(stream[start : start + size])
        start += size
    assert got == frames


@pytest.mark.parametrize(
    "stream",
    [HEAD.pack(DONE, 1, 0, 0.0, MAX_FRAME_BYTES + 1), HEAD.pack(0, 1, 0, 0.0, 0), b"\n"],
    ids=["endless", "unknown kind", "text that is shorter than a head"],
)
def test_a_stream_that_is_no_frames_is_refused(stream: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(stream)
