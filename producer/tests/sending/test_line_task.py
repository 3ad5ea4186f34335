"""A line becomes a message, or a reason."""

import json

import pytest

from producer.sending.line_task import BadLine, LineTask, read_task, series_of
from producer.sending.lines import Line


def read(data: bytes | None, algorithm: str | None = None, series: str = "s", number: int = 1) -> LineTask | BadLine:
    return read_task(Line(number, 0, 10, data), algorithm, series)


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


def test_id_belongs_to_the_series_and_the_line() -> None:
    series = [series_of("content", ""), series_of("content", "again"), series_of("other", "")]
    assert series[0] == series_of("content", "")
    tasks = [read(b"1", "upper", one, number) for one in series for number in (1, 2)]
    assert len({task.id for task in tasks if isinstance(task, LineTask)}) == 6


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
    assert isinstance(bad, BadLine)
    assert bad.code == code
    assert words in bad.message
