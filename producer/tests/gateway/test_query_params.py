"""Cursors: written and read back, and nothing else is taken for one."""

import re

import pytest

from producer.gateway.query_params import DEAD_LETTER_CURSOR, TASK_CURSOR


@pytest.mark.parametrize("place", [1, 42, 10**18 - 1])
def test_what_was_written_is_read_back_and_fits_its_pattern(place: int) -> None:
    cursor = TASK_CURSOR.write(place)
    assert cursor is not None and re.search(TASK_CURSOR.pattern, cursor)
    assert TASK_CURSOR.read(cursor) == place


@pytest.mark.parametrize(
    "cursor", ["", "t", "t0", "t-1", "t1 ", "t1\n", "t1٣", "1", "T1", "t" + "9" * 19, DEAD_LETTER_CURSOR.write(5)]
)
def test_anything_else_is_refused_in_words(cursor: str) -> None:
    with pytest.raises(ValueError, match="'next' of the page before"):
        TASK_CURSOR.read(cursor)
