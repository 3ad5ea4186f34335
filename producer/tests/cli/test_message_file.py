"""A file of messages: its lines, and each as a task or a reason."""

import io
import json
import os
import threading
from pathlib import Path

import pytest

from producer.cli.message_file import Line, LineTask, RefusedLine, open_messages, read_lines, read_task
from producer.errors import BadInput
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES


def test_file_is_counted_and_then_read_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for content, total in ((b"", 0), (b"1\n2\n", 2), (b"1\n2", 2), (b"\n", 1)):
        file.write_bytes(content)
        with open_messages(file, io.BytesIO(), None) as (messages, is_file):
            assert (is_file, messages.total, messages.size) == (True, total, len(content))
            assert len(list(messages.tasks(""))) == content.count(b"1") + content.count(b"2")


def test_same_content_has_the_same_digest_wherever_it_comes_from(tmp_path: Path) -> None:
    file, pipe = tmp_path / "f", tmp_path / "pipe"
    file.write_bytes(b"1\n2\n")
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"1\n2\n",))
    writer.start()
    digests = []
    for path, stdin in ((file, b""), (pipe, b""), (None, b"1\n2\n")):
        with open_messages(path, io.BytesIO(stdin), None) as (messages, is_file):
            digests.append(messages.digest)
            assert is_file == (path == file)
            assert [line.number for line in messages.tasks("")] == [1, 2]
    writer.join(10)
    assert len(set(digests)) == 1


def test_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1\n")
    with open_messages(file, io.BytesIO(), None) as (messages, _):
        messages.check_unchanged()
        with file.open("ab") as more:
            more.write(b"2\n")
        with pytest.raises(BadInput, match="was changed while it was being sent"):
            messages.check_unchanged()


def test_lines_keep_their_numbers_and_places() -> None:
    data = b"\xef\xbb\xbf1\r\n\n  \n 2 \n3"
    lines = list(read_lines(io.BytesIO(data)))
    assert [(line.number, line.data) for line in lines] == [(1, b"1"), (4, b"2"), (5, b"3")]
    assert [data[: line.end] for line in lines] == [b"\xef\xbb\xbf1\r\n", data[:-1], data]


def test_reading_goes_on_where_it_stopped() -> None:
    file = io.BytesIO(b"1\n2\n3\n4\n")
    file.seek(4)
    assert [(line.number, line.data) for line in read_lines(file, after=2, offset=4)] == [(3, b"3"), (4, b"4")]


def test_line_beyond_the_limit_is_not_kept_and_the_next_is_found() -> None:
    longest = b"x" * MAX_MESSAGE_BYTES
    data = b"y" + longest + b"\n2\n" + longest + b"\n" + b"z" * (3 * MAX_MESSAGE_BYTES)
    lines = list(read_lines(io.BytesIO(data)))
    assert [line.data if line.data != longest else "longest" for line in lines] == [None, b"2", "longest", None]
    assert lines[-1].end == len(data)
    assert lines[0].end == MAX_MESSAGE_BYTES + 2


def test_byte_order_marks_of_files_put_one_behind_another_are_no_part_of_a_line() -> None:
    mark = b"\xef\xbb\xbf"
    data = mark + b'{"a":1}\n' + mark + mark + b'{"a":2}\n ' + mark + b" 3\n" + mark + b"\n4\n"
    lines = list(read_lines(io.BytesIO(data)))
    assert [(line.number, line.data) for line in lines] == [(1, b'{"a":1}'), (2, b'{"a":2}'), (3, b"3"), (5, b"4")]
    for place, line in enumerate(lines):
        assert list(read_lines(io.BytesIO(data[line.end :]), after=line.number, offset=line.end)) == lines[place + 1 :]


def read(data: bytes | None, algorithm: str | None = None) -> LineTask | RefusedLine:
    return read_task(Line(1, 10, data), algorithm, "series")


def sent(data: bytes, algorithm: str | None = None) -> dict[str, object]:
    task = read(data, algorithm)
    assert isinstance(task, LineTask)
    assert b"\n" not in task.body
    message: dict[str, object] = json.loads(task.body)
    assert message["id"] == task.id
    return message


def test_message_goes_out_as_it_was_written_with_an_id() -> None:
    message = sent(b'{"algorithm":"upper", "payload":{"n": 1.0, "t":"\\u00e4"}, "expires_seconds": 5}')
    assert message == {"id": message["id"], "algorithm": "upper", "payload": {"n": 1.0, "t": "ä"}, "expires_seconds": 5}
    assert len(str(message["id"])) == 32


def test_payload_alone_is_wrapped() -> None:
    assert sent(b'"a"', "upper")["payload"] == "a"
    assert sent(b'{"algorithm": "x"}', "upper")["algorithm"] == "upper"


def test_id_of_the_line_is_kept_and_null_is_none() -> None:
    assert sent(b'{"algorithm":"upper","payload":1,"id":"mine"}')["id"] == "mine"
    assert len(str(sent(b'{"algorithm":"upper","payload":1,"id":null}')["id"])) == 32


def test_id_belongs_to_the_content_the_run_and_the_line() -> None:
    ids: set[str | None] = set()
    for content, run, algorithm in (
        (b"1\n1\n", "", "a"),
        (b"1\n1\n", "b", "a"),
        (b"1\n2\n", "", "a"),
        (b"1\n1\n", "", "c"),
    ):
        with open_messages(None, io.BytesIO(content), algorithm) as (messages, _):
            once, again = ([task.id for task in messages.tasks(run)] for _ in range(2))
            assert once == again
            ids.update(once)
    assert len(ids) == 8


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (None, "too_large", "more than 16777216 bytes"),
        (b"{oops", "malformed", "not JSON"),
        (b'"\xff"', "malformed", "not UTF-8"),
        (b"[1]", "malformed", "--algorithm"),
        (b'{"text": "a"}', "malformed", "--algorithm"),
        (b'{"algorithm":"upper","payload":1,"payload":2}', "malformed", "duplicate key"),
        (b'{"algorithm":"upper","payload":NaN}', "malformed", "NaN is not JSON"),
        (b'{"algorithm":"upper","payload":%d}' % 2**64, "malformed", "does not fit in 64 bits"),
    ],
)
def test_bad_line_has_a_reason(data: bytes | None, code: str, words: str) -> None:
    bad = read(data)
    assert isinstance(bad, RefusedLine)
    assert bad.code == code
    assert words in bad.message
