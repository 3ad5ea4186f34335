"""Array literals: PostgreSQL reads back what was written."""

import pytest

from taskqueue.postgres.bulk import bytes_array, number_array, text_array

TEXTS = ["", "plain", 'with "quotes"', "back\\slash", "{curly, comma}", "NULL", " spaces ", "ä\U0001f600\n\r\t", None]


@pytest.mark.parametrize("texts", [TEXTS, ["same"] * 3, [None, None], ['"'], ["NULL"]])
def test_text_comes_back_as_it_was(ask, texts):
    assert [row[0] for row in ask("SELECT * FROM unnest(%s::text[])", text_array(texts))] == texts


@pytest.mark.parametrize("values", [[b"", b"\x00\xff\\", b'{"a":"b"}', None], [None], [bytes(range(256))] * 2])
def test_bytes_come_back_as_they_were(ask, values):
    assert [row[0] for row in ask("SELECT * FROM unnest(%s::bytea[])", bytes_array(values))] == values


@pytest.mark.parametrize("numbers", [[1795274829.2201948, 0.1 + 0.2, 1e300, -0.0, None], [1.5, 1.5], [None, None]])
def test_numbers_come_back_to_the_last_digit(ask, numbers):
    assert [row[0] for row in ask("SELECT * FROM unnest(%s::float8[])", number_array(numbers))] == numbers
