"""How the figures are counted."""

import pytest

from evaluate.intervals import Share
from evaluate.reading import Reading, mistakes, normal
from training.splits import FOLDS, read_splits


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(5, 5, 0.566, 1.0), (20, 20, 0.839, 1.0), (0, 20, 0.0, 0.161), (81, 100, 0.722, 0.875)],
)
def test_wilson_intervals_as_in_the_tables(hits, total, low, high) -> None:
    assert Share(hits, total).interval() == pytest.approx((low, high), abs=0.001)


@pytest.mark.parametrize(
    ("expected", "read", "count"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("abc", "axc", 1), ("ab", "xabx", 2)],
)
def test_mistakes_are_counted(expected, read, count) -> None:
    assert mistakes(expected, read) == mistakes(read, expected) == count


def test_case_and_signs_do_not_count_in_the_normal_form() -> None:
    assert normal(" One, does not\nSIMPLY  walk! ") == "ONE DOES NOT SIMPLY WALK"


def test_reading_sums_up() -> None:
    reading = Reading()
    reading.add("ONE TWO", "one two")
    reading.add("THREE", "THRE\n")
    assert (reading.exact, reading.pictures, reading.wrong, reading.characters) == (1, 2, 1, 12)
    assert (reading.words_read, reading.words) == (2, 3)


def test_parts_share_no_word_font_or_photo() -> None:
    splits = read_splits()
    for parts in (splits.words, splits.fonts, splits.photos):
        together = [one for part in parts.values() for one in part]
        assert len(together) == len(set(together))


def test_every_template_is_left_out_once_and_stands_for_one_part() -> None:
    splits = read_splits()
    left_out = [name for fold in range(FOLDS) for name in splits.left_out(fold)]
    assert sorted(left_out) == splits.labels
    for fold in range(FOLDS):
        validation, test = (set(splits.left_out(fold, part)) for part in ("validation", "test"))
        assert validation and test and not validation & test


def test_versions_of_one_picture_are_left_out_together() -> None:
    splits = read_splits()
    assert len({splits.templates[name] for name in splits.labels if name.startswith(("awesome", "awkward"))}) == 1
