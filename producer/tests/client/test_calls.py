"""Requests of bounded size, in order."""

from producer.client.calls import _BATCH_BYTES, batches


def sizes(*items: int) -> list[list[int]]:
    return list(batches(items, lambda item: item))


def test_thousand_messages_in_one_request() -> None:
    assert [len(batch) for batch in sizes(*[10] * 2001)] == [1000, 1000, 1]
    assert sizes() == []


def test_request_is_bounded_in_bytes_and_one_large_message_goes_alone() -> None:
    half = _BATCH_BYTES // 2
    assert sizes(half, half + 1, 3 * half, 10, 20) == [[half], [half + 1], [3 * half], [10, 20]]


def test_lines_that_are_not_sent_stay_at_their_place_and_are_bounded_in_number() -> None:
    assert sizes(10, 0, 10, 0) == [[10, 0, 10, 0]]
    assert [len(batch) for batch in sizes(*[0] * 1001)] == [1000, 1]
