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
    assert (envelope.delay_seconds, envelope.group) == (None, None)


def test_a_group_and_a_delay_are_read_and_are_no_part_of_the_content() -> None:
    plain = {"algorithm": "upper", "payload": {}, "expires_seconds": 60.5}
    envelope = parse_envelope(json.dumps(plain | {"delay_seconds": 60, "group": "tenant:A-1_b.c"}).encode())
    assert (envelope.delay_seconds, envelope.expires_seconds) == (60.0, 60.5)
    assert (envelope.group, envelope.unknown) == ("tenant:A-1_b.c", ())
    assert envelope.digest == parse_envelope(json.dumps(plain).encode()).digest


def test_a_delay_of_nothing_is_none_and_one_of_a_week_is_the_longest() -> None:
    delays = [
        parse_envelope(json.dumps({"algorithm": "upper", "payload": {}, "delay_seconds": seconds}).encode())
        for seconds in (None, 0, 0.0, 604_800)
    ]
    assert [envelope.delay_seconds for envelope in delays] == [None, None, None, 604_800.0]


def test_unknown_fields_of_a_message_are_named_and_change_nothing_else() -> None:
    envelope = parse_envelope(b'{"algorithm": "upper", "payload": {}, "sent_by": "cron", "id": "a:1"}')
    assert envelope.id == "a:1"
    assert [each.sentence for each in envelope.unknown] == [
        "unknown field 'sent_by'; a message has algorithm, payload, id, expires_seconds, delay_seconds, group"
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("expire_seconds", "expires_seconds"),
        ("expires", "expires_seconds"),
        ("Expires-Seconds", "expires_seconds"),
        ("algorithms", "algorithm"),
        ("Payload", "payload"),
        ("delay", "delay_seconds"),
        ("delay_second", "delay_seconds"),
        ("groups", "group"),
        ("timeout_seconds", None),
        ("run_at", None),
        ("x" * 5000, None),
    ],
)
def test_an_unknown_field_is_told_with_the_known_one_that_was_probably_meant(name: str, near: str | None) -> None:
    (field,) = parse_envelope(json.dumps({"algorithm": "upper", "payload": {}, name: 1}).encode()).unknown
    assert (field.name, field.near) == (name, near)
    assert (f"did you mean {near!r}?" in field.sentence) is (near is not None)
    assert len(field.sentence) < 200


def test_of_a_message_with_thousands_of_unknown_fields_the_first_few_are_told() -> None:
    message = {"algorithm": "upper", "payload": {}} | {f"field_{number}": 1 for number in range(20_000)}
    assert [each.name for each in parse_envelope(json.dumps(message).encode()).unknown] == [
        f"field_{number}" for number in range(8)
    ]


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
        ({"algorithm": "upper", "payload": {}, "delay_seconds": -1}, "'delay_seconds' must be a number"),
        ({"algorithm": "upper", "payload": {}, "delay_seconds": 604_801}, "604800 .7 days."),
        ({"algorithm": "upper", "payload": {}, "delay_seconds": True}, "'delay_seconds' must be"),
        ({"algorithm": "upper", "payload": {}, "delay_seconds": "9"}, "'delay_seconds' must be"),
        (
            {"algorithm": "upper", "payload": {}, "delay_seconds": 9, "expires_seconds": 9},
            "'expires_seconds' must be more than 'delay_seconds'",
        ),
        ({"algorithm": "upper", "payload": {}, "group": ""}, "'group' must be 1 to 64"),
        ({"algorithm": "upper", "payload": {}, "group": "a" * 65}, "'group' must be"),
        ({"algorithm": "upper", "payload": {}, "group": "a b"}, "'group' must be"),
        ({"algorithm": "upper", "payload": {}, "group": "a\n"}, "'group' must be"),
        ({"algorithm": "upper", "payload": {}, "group": 7}, "'group' must be"),
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
