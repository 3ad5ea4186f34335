"""Frames survive any chopping of the stream."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerlib.frames import MAX_FRAME_BYTES, FrameError, FrameReader, encode

HEADERS = st.dictionaries(st.text(max_size=5), st.integers(-100, 100) | st.text(max_size=5), max_size=3)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=50)), max_size=6), st.data())
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[dict[str, Any], bytes]], data: st.DataObject
) -> None:
    stream = b"".join(encode(header, body) for header, body in frames)
    reader, got, start = FrameReader(), [], 0
    while start < len(stream):
        size = data.draw(st.integers(1, len(stream) - start))
        got += reader.feed(stream[start : start + size])
        start += size
    assert got == frames


@pytest.mark.parametrize(
    "stream",
    [
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big") + bytes(4),
        bytes([0, 0, 0, 2, 0, 0, 0, 0]) + b"{]",
        bytes([0, 0, 0, 2, 0, 0, 0, 0]) + b"[]",
    ],
    ids=["endless", "not json", "not an object"],
)
def test_a_stream_that_is_no_frames_is_refused(stream: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(stream)
