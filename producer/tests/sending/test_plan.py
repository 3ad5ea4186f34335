"""What is done with a file of which something was sent before."""

from dataclasses import replace

from producer.sending.plan import Fresh, GoOn, Refuse, Wish, plan
from producer.sending.sent_note import SentNote

WISH = Wish("http://g", "digest", again=False, run=None)
AGAIN = replace(WISH, again=True)
HALF = SentNote("http://g", "digest", "", line=5, offset=50, tasks=5, last_id="x")
WHOLE = replace(HALF, is_complete=True)


def planned(wish: Wish, note: SentNote | None, *, still_known: bool = True) -> Fresh | GoOn | Refuse:
    return plan(wish, note, still_known=still_known, new_run="new")


def test_first_time_is_one_series_for_the_content() -> None:
    assert planned(WISH, None) == Fresh("")
    assert planned(AGAIN, None) == Fresh("new")
    assert planned(replace(WISH, run="mine"), None) == Fresh("mine")


def test_interrupted_goes_on_also_with_again() -> None:
    for wish in (WISH, AGAIN, replace(WISH, run="")):
        assert planned(wish, HALF) == GoOn(HALF)


def test_sent_wholly_has_nothing_left_unless_again() -> None:
    assert planned(WISH, WHOLE) == GoOn(WHOLE)
    assert planned(AGAIN, WHOLE) == Fresh("new")
    assert planned(replace(WISH, run="mine"), WHOLE) == Fresh("mine")


def test_another_gateway_gets_it_from_the_first_line() -> None:
    assert planned(replace(WISH, gateway="http://h"), WHOLE) == Fresh("")


def test_changed_file_is_refused_unless_all_of_it_is_new() -> None:
    changed = replace(WISH, digest="other")
    refused = planned(changed, HALF)
    assert isinstance(refused, Refuse)
    assert "its first 5 lines were sent" in refused.reason
    assert planned(replace(changed, again=True), HALF) == Fresh("new")


def test_environment_that_forgot_is_not_given_half() -> None:
    refused = planned(WISH, HALF, still_known=False)
    assert isinstance(refused, Refuse)
    assert "--again" in refused.reason
    assert planned(AGAIN, HALF, still_known=False) == Fresh("new")
