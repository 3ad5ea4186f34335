"""Requests of bounded size, in the order of the lines."""

from producer.sending.line_task import BadLine, LineTask
from producer.sending.lines import Line
from producer.sending.windows import MOST_BYTES, windows


def good(number: int, size: int = 10) -> LineTask:
    return LineTask(Line(number, 0, 0, b""), str(number), b"x" * size)


def bad(number: int) -> BadLine:
    return BadLine(Line(number, 0, 0, b""), "malformed", "")


def shape(*lines: LineTask | BadLine) -> list[tuple[int, int, int]]:
    return [(len(one.tasks), len(one.bad), one.last.number if one.last else 0) for one in windows(lines)]


def test_thousand_messages_in_one_request() -> None:
    assert shape(*map(good, range(1, 2002))) == [(1000, 0, 1000), (1000, 0, 2000), (1, 0, 2001)]


def test_request_is_bounded_in_bytes_and_one_large_message_goes_alone() -> None:
    half = MOST_BYTES // 2
    assert shape(good(1, half), good(2, half), good(3, 2 * MOST_BYTES), good(4)) == [
        (1, 0, 1),
        (1, 0, 2),
        (1, 0, 3),
        (1, 0, 4),
    ]


def test_bad_lines_stay_at_their_place() -> None:
    assert shape(good(1), bad(2), good(3), bad(4)) == [(2, 2, 4)]
    assert shape(*map(bad, range(1, 1002))) == [(0, 1000, 1000), (0, 1, 1001)]
    assert shape() == []
