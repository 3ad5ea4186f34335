"""What senders get wrong, and a piece of the sentence that each is told. The same at every door and on every store."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bad:
    """`body` is the whole message; `says` is in what its sender is told."""

    name: str
    body: bytes
    says: str


def carrying(value: bytes) -> bytes:
    """A message with this value, written out as it is."""
    return b'{"algorithm": "carry", "payload": {"value": ' + value + b"}}"


#: Values that two JSON parsers would read differently, or not at all.
VALUES = [
    Bad("NaN", b"NaN", "NaN is not JSON"),
    Bad("minus_infinity", b"-Infinity", "-Infinity is not JSON"),
    Bad("10_to_the_400", b"1e400", "beyond what a 64-bit float can hold"),
    Bad("65_levels", b"[" * 65 + b"]" * 65, "nested deeper than 6"),
    Bad("100_000_levels", b"[" * 100_000 + b"]" * 100_000, "nested deeper than 6"),
    Bad("100_000_levels_never_closed", b'{"a":' * 100_000, "nested deeper than 6"),
    Bad("duplicate_keys", b'{"a": 1, "a": 2}', "duplicate key 'a'"),
    Bad("raw_NUL", b'"a\x00b"', "not JSON: Invalid control character"),
    Bad("lone_surrogate", b'"\\ud800"', "lone surrogate"),
    Bad("lone_surrogate_as_key", b'{"\\udfff": 1}', "lone surrogate"),
    Bad("5_000_digits", b"9" * 5_000, "integer of 5000 digits does not fit in 64 bits"),
    Bad("65_bits", str(2**64).encode(), "does not fit in 64 bits"),
    Bad("not_UTF_8", b'"\xff\xfe"', "not UTF-8"),
    Bad("surrogate_as_bytes", b'"\xed\xa0\x80"', "not UTF-8"),
]

MESSAGES = [
    Bad("empty", b"", "not JSON"),
    Bad("spaces", b"  \n", "not JSON"),
    Bad("half", b'{"algorithm": "carry"', "not JSON"),
    Bad("binary", b"\x80\x04\x95", "not UTF-8"),
    Bad("a_list", b"[1, 2]", "must be a JSON object"),
    Bad("null", b"null", "must be a JSON object"),
    Bad("text", b'"carry"', "must be a JSON object"),
    Bad("no_algorithm", b'{"payload": {"value": 1}}', "'algorithm' must be"),
    Bad("algorithm_is_a_number", b'{"algorithm": 7, "payload": {}}', "'algorithm' must be"),
    Bad("algorithm_is_a_path", b'{"algorithm": "../carry", "payload": {}}', "'algorithm' must be"),
    Bad("algorithm_with_NUL", b'{"algorithm": "carry\\u0000", "payload": {}}', "'algorithm' must be"),
    Bad("no_payload", b'{"algorithm": "carry"}', "'payload' is missing"),
    Bad("id_with_NUL", b'{"algorithm": "carry", "payload": {"value": 1}, "id": "a\\u0000b"}', "'id' must be"),
    Bad("id_is_a_number", b'{"algorithm": "carry", "payload": {"value": 1}, "id": 7}', "'id' must be"),
    Bad("expires_never", b'{"algorithm": "carry", "payload": {"value": 1}, "expires_seconds": 0}', "'expires_seconds'"),
    Bad("webhook", b'{"algorithm": "carry", "payload": {"value": 1}, "callback_url": "x"}', "not supported"),
    *(Bad(each.name, carrying(each.body), each.says) for each in VALUES),
]

#: Payloads that do not fit `repeat(text: str, times: int = 1)`; `says` is the field at fault.
PAYLOADS = [
    Bad("field_missing", b"{}", "text"),
    Bad("field_unknown", b'{"text": "a", "tiems": 2}', "tiems"),
    Bad("number_for_text", b'{"text": 7}', "text"),
    Bad("null_for_text", b'{"text": null}', "text"),
    Bad("text_for_number", b'{"text": "a", "times": "2"}', "times"),
    Bad("true_for_number", b'{"text": "a", "times": true}', "times"),
    Bad("half_a_number", b'{"text": "a", "times": 1.5}', "times"),
    Bad("a_list", b"[]", "payload"),
    Bad("null", b"null", "payload"),
]

#: Unusual, and carried faithfully.
CARRIED = {
    "NUL": b'"a\\u0000b"',
    "NUL_as_key": b'{"\\u0000": 1}',
    "character_pair": b'"\\ud83d\\ude00"',
    "empty_key": b'{"": ""}',
    "line_separators": b'"\\u2028\\u2029\\u0085\\ufeff"',
    "largest_integer": str(2**64 - 1).encode(),
    "smallest_integer": str(-(2**63)).encode(),
    "largest_float": b"1.7976931348623157e308",
    "smallest_float": b"5e-324",
    "a_third": b"0.1",
    "5_000_digits_behind_the_point": b"0." + b"1" * 5_000,
    "62_levels": b"[" * 62 + b"]" * 62,
    "half_a_megabyte": b'"' + b"\xc3\xa4" * 250_000 + b'"',
    "backslashes": b'"\\\\u0000 \\" \'; DROP TABLE tasks; --"',
}
