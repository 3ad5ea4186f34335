"""Values in the cells of a table."""

from worker.demo import shortened

MEME = {"label": "fry", "score": 0.99, "top": [{"label": "fry", "score": 0.99}], "known": True}


def test_what_fits_is_shown_as_it_is() -> None:
    assert shortened(MEME, 200).startswith('{"label": "fry", "score": 0.99, "top": [{"label"')
    assert shortened("ça va", 10) == '"ça va"'


def test_lists_inside_objects_are_left_out_first() -> None:
    assert shortened(MEME, 66) == '{"label": "fry", "score": 0.99, "top": […], "known": true}'


def test_inner_objects_show_fewer_entries_the_less_room_there_is() -> None:
    described = {"meme": MEME, "text": "NOT SURE"}
    assert shortened(described, 66) == '{"meme": {"label": "fry", "score": 0.99, …}, "text": "NOT SURE"}'
    assert shortened(described, 55) == '{"meme": {"label": "fry", …}, "text": "NOT SURE"}'


def test_what_is_too_long_all_the_same_is_cut() -> None:
    assert shortened([1, 2, 3], 5) == "[1, …"
    assert shortened({"url": "x" * 99}, 20) == '{"url": "xxxxxxxxxx…'
