"""How many processes each runner has."""

import pytest

from worker.errors import BadScale
from worker.scale import read_scale


def test_words_may_be_repeated_and_later_ones_win() -> None:
    assert read_scale(["nlp=2, text=3", "", "text = 0"]) == {"nlp": 2, "text": 0}


@pytest.mark.parametrize("word", ["nlp", "nlp=", "nlp=two", "=2", "nlp=-1", "nlp=2.5", "nlp=1e3"])
def test_what_cannot_be_read_is_told_with_an_example(word: str) -> None:
    with pytest.raises(BadScale, match="write it like nlp=2,text=3"):
        read_scale([word])


def test_slip_of_the_pen_starts_no_thousand_processes() -> None:
    with pytest.raises(BadScale, match="nlp=1000 is more than the 64"):
        read_scale(["nlp=1000"])
