"""The matching of confirms, without a broker."""

from typing import Any

from taskqueue.rabbitmq.confirms import Confirms, Ticket


def _written(confirms: Confirms, count: int, routing_key: str = "upper") -> Ticket:
    ticket = Ticket()
    for _ in range(count):
        confirms.written(ticket, "tasks", routing_key, 10)
    ticket.completed()
    return ticket


def test_a_ticket_is_done_when_all_its_messages_are_confirmed_in_any_order(run: Any) -> None:
    async def scenario() -> None:
        confirms = Confirms()
        first, second = _written(confirms, 3), _written(confirms, 2)
        for number in (5, 2, 3):
            confirms.confirmed(number, False, True)
        assert not first.done.done()
        assert (len(confirms), confirms.size) == (2, 20)
        confirms.confirmed(1, False, True)
        assert first.done.done()
        assert not second.done.done()
        confirms.confirmed(4, False, True)
        assert second.done.done()
        assert (first.failure, second.failure) == ("", "")
        assert (len(confirms), confirms.size) == (0, 0)

    run(scenario())


def test_a_multiple_confirm_covers_all_before_it(run: Any) -> None:
    async def scenario() -> None:
        confirms = Confirms()
        first, second = _written(confirms, 3), _written(confirms, 3)
        confirms.confirmed(2, False, True)
        confirms.confirmed(4, True, True)
        assert first.done.done()
        assert not second.done.done()
        confirms.confirmed(0, True, True)
        assert second.done.done()
        assert len(confirms) == 0

    run(scenario())


def test_a_refusal_fails_only_the_ticket_it_belongs_to(run: Any) -> None:
    async def scenario() -> None:
        confirms = Confirms()
        first, second = _written(confirms, 2), _written(confirms, 1)
        confirms.confirmed(1, False, False)
        assert first.done.done()
        assert "refuses" in first.failure
        confirms.confirmed(3, True, True)
        assert second.done.done()
        assert second.failure == ""

    run(scenario())


def test_a_returned_message_fails_those_of_its_kind(run: Any) -> None:
    async def scenario() -> None:
        confirms = Confirms()
        upper, lower = _written(confirms, 1, "upper"), _written(confirms, 1, "lower")
        confirms.returned("tasks", "lower")
        confirms.confirmed(2, True, True)
        assert upper.failure == ""
        assert "'lower'" in lower.failure
        assert upper.done.done()

    run(scenario())


def test_a_ticket_is_not_done_before_its_last_message_was_written(run: Any) -> None:
    async def scenario() -> None:
        confirms = Confirms()
        ticket = Ticket()
        confirms.written(ticket, "tasks", "upper", 1)
        confirms.confirmed(1, False, True)
        assert not ticket.done.done()
        confirms.written(ticket, "tasks", "upper", 1)
        ticket.completed()
        confirms.confirmed(2, False, True)
        assert ticket.done.done()

    run(scenario())


def test_late_confirms_of_a_failed_ticket_make_room_and_nothing_else(run: Any) -> None:
    async def scenario() -> None:
        confirms = Confirms()
        ticket = _written(confirms, 2)
        confirms.fail_all("no time left")
        confirms.fail_all("something else")
        assert ticket.done.done()
        assert len(confirms) == 2
        confirms.confirmed(2, True, True)
        confirms.confirmed(2, False, True)
        assert len(confirms) == 0
        assert ticket.failure == "no time left"

    run(scenario())
