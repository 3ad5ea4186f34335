"""Lines of files, also of files that nobody should write."""

import io

from producer.sending.lines import read_lines, read_lines_at
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES


def test_lines_keep_their_numbers_and_places() -> None:
    data = b"\xef\xbb\xbf1\r\n\n  \n 2 \n3"
    lines = list(read_lines(io.BytesIO(data)))
    assert [(line.number, line.data) for line in lines] == [(1, b"1"), (4, b"2"), (5, b"3")]
    assert [data[line.start : line.end] for line in lines] == [b"\xef\xbb\xbf1\r\n", b" 2 \n", b"3"]


def test_reading_goes_on_where_it_stopped() -> None:
    file = io.BytesIO(b"1\n2\n3\n4\n")
    file.seek(4)
    assert [(line.number, line.data) for line in read_lines(file, after=2, offset=4)] == [(3, b"3"), (4, b"4")]
    again = list(read_lines_at(file, [(1, 0), (4, 6)]))
    assert [(line.number, line.start, line.end, line.data) for line in again] == [(1, 0, 2, b"1"), (4, 6, 8, b"4")]


def test_line_beyond_the_limit_is_not_kept_and_the_next_is_found() -> None:
    longest = b"x" * MAX_MESSAGE_BYTES
    data = b"y" + longest + b"\n2\n" + longest + b"\n" + b"z" * (3 * MAX_MESSAGE_BYTES)
    lines = list(read_lines(io.BytesIO(data)))
    assert [line.data if line.data != longest else "longest" for line in lines] == [None, b"2", "longest", None]
    assert lines[-1].end == len(data)
    assert lines[1].start == MAX_MESSAGE_BYTES + 2


def test_byte_order_marks_of_files_put_one_behind_another_are_no_part_of_a_line() -> None:
    mark = b"\xef\xbb\xbf"
    data = mark + b'{"a":1}\n' + mark + mark + b'{"a":2}\n ' + mark + b" 3\n" + mark + b"\n4\n"
    lines = list(read_lines(io.BytesIO(data)))
    assert [(line.number, line.data) for line in lines] == [(1, b'{"a":1}'), (2, b'{"a":2}'), (3, b"3"), (5, b"4")]
    assert list(read_lines_at(io.BytesIO(data), [(line.number, line.start) for line in lines])) == lines
