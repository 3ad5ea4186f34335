import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerlib.contract import EnvelopeError, FailureCode, parse_envelope, task_digest


def test_algorithm_and_payload_are_enough() -> None:
    envelope = parse_envelope(b'{"algorithm": "upper", "payload": {"text": "caf\xc3\xa9"}}')
    assert envelope.algorithm == "upper"
    assert envelope.payload == '{"text":"café"}'.encode()
    assert envelope.id is None
    assert envelope.expires_seconds is None


def test_unknown_fields_of_the_envelope_are_ignored() -> None:
    envelope = parse_envelope(b'{"algorithm": "upper", "payload": {}, "sent_by": "cron", "id": "a:1"}')
    assert envelope.id == "a:1"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ([], "must be a JSON object"),
        (None, "must be a JSON object"),
        ({}, "'algorithm' must be"),
        ({"algorithm": "Upper", "payload": {}}, "'algorithm' must be"),
        ({"algorithm": "a" * 64, "payload": {}}, "'algorithm' must be"),
        ({"algorithm": "upper\n", "payload": {}}, "'algorithm' must be"),
        ({"algorithm": "upper"}, "'payload' is missing"),
        ({"algorithm": "upper", "payload": {}, "id": ""}, "'id' must be"),
        ({"algorithm": "upper", "payload": {}, "id": "../x"}, "'id' must be"),
        ({"algorithm": "upper", "payload": {}, "id": 7}, "'id' must be"),
        ({"algorithm": "upper", "payload": {}, "expires_seconds": 0}, "'expires_seconds' must be"),
        ({"algorithm": "upper", "payload": {}, "expires_seconds": True}, "'expires_seconds' must be"),
        ({"algorithm": "upper", "payload": {}, "expires_seconds": "9"}, "'expires_seconds' must be"),
        ({"algorithm": "upper", "payload": {}, "callback_url": None}, "'callback_url' is not supported"),
        ({"algorithm": "upper", "payload": {}, "priority": 3}, "'priority' is not supported"),
    ],
)
def test_a_message_that_cannot_become_a_task_is_malformed_in_words(message: object, says: str) -> None:
    with pytest.raises(EnvelopeError, match=says) as caught:
        parse_envelope(json.dumps(message).encode())
    assert caught.value.code is FailureCode.MALFORMED


def test_a_message_over_the_limit_is_too_large_and_told_what_to_do() -> None:
    with pytest.raises(EnvelopeError, match="send a reference") as caught:
        parse_envelope(b" " * 101, max_bytes=100)
    assert caught.value.code is FailureCode.TOO_LARGE


def test_digest_ignores_key_order_and_notices_content() -> None:
    assert task_digest("x", {"a": 1, "b": 2}) == task_digest("x", {"b": 2, "a": 1})
    assert task_digest("x", {"a": 1}) != task_digest("x", {"a": 2})
    assert task_digest("x", {"a": 1}) != task_digest("y", {"a": 1})


@given(st.binary(max_size=80))
def test_any_bytes_give_an_envelope_or_an_envelope_error(body: bytes) -> None:
    try:
        parse_envelope(body)
    except EnvelopeError as error:
        assert str(error)
