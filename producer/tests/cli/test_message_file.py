"""A file of messages: its lines, and each as a task or a reason."""

import io
import json
import os
import threading
from pathlib import Path

import pytest

from producer.cli.message_file import LineTask, MessageFile, RefusedLine, open_messages, read_lines, read_task
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES


def test_pipe_is_read_as_a_file_is_also_twice(tmp_path: Path) -> None:
    for twice in (False, True):
        pipe = tmp_path / f"pipe-{twice}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(b"1\n2\n",))
        writer.start()
        with open_messages(pipe, "a", "", is_read_twice=twice) as messages:
            first = list(messages.tasks())
            if twice:
                messages.file.seek(0)
                assert list(messages.tasks()) == first
        writer.join(10)
        assert [line.number for line in first] == [1, 2]


def test_lines_keep_their_numbers() -> None:
    data = b"\xef\xbb\xbf1\r\n\n  \n 2 \n3"
    assert list(read_lines(io.BytesIO(data))) == [(1, b"1"), (4, b"2"), (5, b"3")]


def test_line_beyond_the_limit_is_not_kept_and_the_next_is_found() -> None:
    longest = b"x" * MAX_MESSAGE_BYTES
    data = b"y" + longest + b"\n2\n" + longest + b"\n" + b"z" * (3 * MAX_MESSAGE_BYTES)
    lines = [(number, "longest" if text == longest else text) for number, text in read_lines(io.BytesIO(data))]
    assert lines == [(1, None), (2, b"2"), (3, "longest"), (4, None)]


def test_byte_order_marks_of_files_put_one_behind_another_are_no_part_of_a_line() -> None:
    mark = b"\xef\xbb\xbf"
    data = mark + b'{"a":1}\n' + mark + mark + b'{"a":2}\n ' + mark + b" 3\n" + mark + b"\n4\n"
    assert list(read_lines(io.BytesIO(data))) == [(1, b'{"a":1}'), (2, b'{"a":2}'), (3, b"3"), (5, b"4")]


def read(data: bytes | None, algorithm: str | None = None) -> LineTask | RefusedLine:
    return read_task(1, data, algorithm, "series")


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


def ids(content: bytes, name: str = "f", algorithm: str = "a", run: str = "") -> list[str | None]:
    return [task.id for task in MessageFile(io.BytesIO(content), name, None, algorithm, run).tasks()]


def test_id_belongs_to_the_line_and_its_place() -> None:
    known = ids(b"1\n1\n2\n")
    assert len(set(known)) == 3
    assert ids(b"1\r\n 1\n2") == known
    corrected = ids(b"1\n3\n2\n4\n")
    assert [corrected[0], corrected[2]] == [known[0], known[2]]
    assert not {corrected[1], corrected[3]} & set(known)


def test_other_file_other_algorithm_and_other_run_are_other_tasks() -> None:
    assert len({*ids(b"1"), *ids(b"1", name="g"), *ids(b"1", algorithm="b"), *ids(b"1", run="r")}) == 4


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
