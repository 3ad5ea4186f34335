"""A controller's ingress: what strangers send to a broker."""

import pytest

from controller.ingress import MOST_HELD
from runnerlib.contract import FailureCode, TaskState, task_digest
from taskqueue.errors import QueueUnavailable, StoreUnavailable
from taskqueue.tasks import Delivery, NewTask, Placement


def task(value=1, **more):
    return {"algorithm": "echo", "payload": {"value": value}, **more}


def test_stranger_s_message_is_run_and_answered(broker_world, make_runner, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            await world.start(make_runner())
            (receipt,) = broker.door.bring(task(7), reply_to="answers", correlation_id="c")
            await wait_until(lambda: broker.replies)
            ((reply_to, correlation_id, told),) = broker.replies
            assert (reply_to, correlation_id) == ("answers", "c")
            assert (told["state"], told["result"], told["attempt"]) == ("succeeded", 7, 1)
            assert (await world.ended(told["id"])).result == b"7"
            assert receipt in broker.acked
            assert world.metric("controller_arrivals_total", verdict="forwarded") == 1

    go(scenario())


def test_what_arrives_together_is_forwarded_together(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            broker.door.bring(*(task(n, id=f"t{n}") for n in range(100)))
            await world.start_controller()
            await wait_until(lambda: broker.door.forwarded)
            assert [[each.id for each in call] for call in broker.door.forwarded] == [[f"t{n}" for n in range(100)]]

    go(scenario())


def test_refused_message_becomes_a_failed_task_with_a_dead_letter_and_an_answer(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            body = b'{"algorithm": "echo", "id": "t1"}'
            (receipt,) = broker.door.bring(body, reply_to="answers", correlation_id="c", headers={"from": "me"})
            await wait_until(lambda: receipt in broker.acked)
            row = await world.row("t1")
            assert (row.state, row.error_code) == (TaskState.FAILED, FailureCode.MALFORMED)
            (line,) = await world.store.dead_letters()
            letter = await world.store.dead_letter(line.dead_id)
            assert (letter.task_id, letter.code, letter.body) == ("t1", FailureCode.MALFORMED, body)
            assert letter.headers == {"from": "me"}
            ((_, _, told),) = broker.replies
            assert (told["id"], told["state"], told["error"]["code"]) == ("t1", "failed", "malformed")
            assert "'payload' is missing" in told["error"]["message"]

    go(scenario())


def test_fields_that_mean_nothing_are_told_once_in_the_log_and_the_tasks_run(broker_world, make_runner, go, capsys):
    async def scenario():
        async with broker_world() as (world, broker):
            await world.start(make_runner())
            for n in range(20):
                broker.door.bring(
                    {"algorithm": "echo", "payload": {"value": n}, "id": f"t{n}", "expire_seconds": 5, "run_at": "noon"}
                )
            for n in range(20):
                assert (await world.ended_soon(f"t{n}")).state is TaskState.SUCCEEDED

    go(scenario())
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "means nothing" in line]
    assert len(lines) == 2
    assert "t0" in lines[0]
    assert "'expire_seconds'; did you mean 'expires_seconds'?" in lines[0]
    assert "unknown field 'run_at'" in lines[1]


def test_metrics_have_no_labels_from_strangers(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            (receipt,) = broker.door.bring({"algorithm": "made_up", "payload": {}}, dead_reason="expired")
            await wait_until(lambda: receipt in broker.acked)
            await wait_until(
                lambda: world.metric(
                    "controller_outcomes_total", algorithm="", outcome="failed", code="controller_lost"
                )
            )

    go(scenario())


def test_unknown_algorithm_is_parked_until_its_grace_is_over(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller(unknown_algorithm_grace_seconds=600)
            broker.door.bring({"algorithm": "ecko", "payload": {}, "id": "t1"})
            await wait_until(lambda: broker.door.parked)
            ((_, parked),) = broker.door.parked[0]
            assert (parked.id, parked.algorithm) == ("t1", "ecko")
            assert await world.store.get("t1") is None
            broker.door.bring({"algorithm": "ecko", "payload": {}, "id": "t1"}, first_seen_at=1.0)
            assert (await world.ended_soon("t1")).error_code is FailureCode.UNKNOWN_ALGORITHM
            assert "did you mean 'echo'" in (await world.row("t1")).error_message

    go(scenario())


def test_nothing_fails_as_unknown_before_discovery_has_answered(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.source.is_sure = False
            await world.start_controller(unknown_algorithm_grace_seconds=0)
            broker.door.bring(task(id="t1"), first_seen_at=1.0)
            await wait_until(lambda: broker.door.parked)

    go(scenario())


def test_store_that_is_away_does_not_stop_forwarding(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            lookup, away = world.store.lookup, True

            async def failing(ids):
                if away:
                    raise StoreUnavailable("planted")
                return await lookup(ids)

            world.store.lookup = failing
            await world.start_controller()
            bad = broker.door.bring(*(b"%d" % n for n in range(2 * MOST_HELD)))
            broker.door.bring(task(id="t1"))
            await wait_until(lambda: broker.door.forwarded)
            # what cannot be held here comes again later
            assert [len(call) for call in broker.door.parked] == [MOST_HELD]
            assert not set(bad[:MOST_HELD]) & set(broker.acked)
            away = False
            await wait_until(lambda: set(bad) <= set(broker.acked))
            assert len(await world.store.dead_letters()) == MOST_HELD

    go(scenario())


def test_broker_that_is_away_is_waited_for(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            broker.door.troubles = [QueueUnavailable("planted")] * 2
            await world.start_controller()
            broker.door.bring(task(id="t1"))
            await wait_until(lambda: "ingress" in world.health.reasons)
            await wait_until(lambda: broker.door.forwarded)
            assert len(broker.door.forwarded) == 1
            await wait_until(lambda: world.health.is_ready)

    go(scenario())


def test_message_that_cannot_be_passed_on_fails_alone(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            broker.door.poison = b"poison"
            await world.start_controller()
            broker.door.bring(task(1, id="t1"), task("poison", id="t2"), task(3, id="t3"))
            row = await world.ended_soon("t2")
            assert row.error_code is FailureCode.MALFORMED
            assert "cannot be passed on" in row.error_message
            await wait_until(lambda: [each.id for call in broker.door.forwarded for each in call] == ["t1", "t3"])

    go(scenario())


def test_refusal_that_cannot_be_settled_is_put_aside_and_holds_up_no_other(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            record = world.store.record

            async def failing(records):
                if any(each.delivery.id == "t1" for each in records):
                    raise ValueError("planted")
                return await record(records)

            world.store.record = failing
            await world.start_controller()
            broker.door.bring({"id": "t1"}, {"id": "t2"})
            assert (await world.ended_soon("t2")).error_code is FailureCode.MALFORMED
            await wait_until(lambda: broker.door.parked)
            assert [each.id for call in broker.door.parked for _, each in call] == ["t1"]

    go(scenario())


def test_refused_message_with_a_used_id_leaves_that_task_alone(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            digest = task_digest("echo", {})
            running = Delivery("t1", "echo", b"{}", digest, attempt=1, receipt=None)
            await world.store.place([(running, Placement("t1", 1, "r1", "boot"))])
            await world.start_controller()
            (receipt,) = broker.door.bring({"id": "t1"}, reply_to="answers")
            await wait_until(lambda: receipt in broker.acked)
            assert (await world.row("t1")).state is TaskState.RUNNING
            (letter,) = await world.store.dead_letters()
            assert letter.code is FailureCode.ID_CONFLICT
            assert "'algorithm'" in letter.message
            assert broker.replies[0][2]["error"]["code"] == "id_conflict"

    go(scenario())


def test_refusal_that_comes_again_is_answered_from_the_record(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            broker.door.bring({"id": "t1"}, {"id": "t1"}, reply_to="answers")
            await wait_until(lambda: len(broker.replies) == 2)
            broker.door.bring({"id": "t1"}, reply_to="answers")
            await wait_until(lambda: len(broker.replies) == 3)
            assert broker.raw_replies == [broker.raw_replies[0]] * 3
            assert len(await world.store.dead_letters()) == 1

    go(scenario())


def test_tombstone_meets_what_expired_and_the_sender_is_told(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.store.cancel("t1")
            await world.start_controller()
            broker.door.bring(task(id="t1"), expires_at=1.0, reply_to="answers")
            await wait_until(lambda: broker.replies)
            assert broker.replies[0][2] == {"id": "t1", "algorithm": "echo", "state": "cancelled", "attempt": 1}

    go(scenario())


def test_stop_gives_back_what_was_not_settled_and_closes_the_door(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()

            async def failing(ids):
                raise StoreUnavailable("planted")

            world.store.lookup = failing
            await world.start_controller()
            receipts = broker.door.bring(b"1", b"2")
            await wait_until(lambda: "store" in world.health.reasons)
            await world.stop_controller()
            assert {each.receipt for each in broker.released} == set(receipts)
            assert broker.door.closed
            assert broker.acked == []

    go(scenario())


def test_stop_gives_back_what_the_broker_would_not_take(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            broker.door.troubles = [QueueUnavailable("planted")] * 1000
            await world.start_controller()
            receipts = broker.door.bring(task(id="t1"))
            await wait_until(lambda: "ingress" in world.health.reasons)
            await world.stop_controller()
            assert [each.receipt for each in broker.released] == receipts

    go(scenario())


@pytest.mark.parametrize("trouble", [QueueUnavailable("planted"), RuntimeError("planted")])
def test_trouble_at_the_door_is_survived(broker_world, go, wait_until, trouble):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            take, troubles = broker.door.take, [trouble]

            async def failing(most):
                if troubles:
                    raise troubles.pop()
                return await take(most)

            broker.door.take = failing
            await world.start_controller()
            broker.door.bring(task(id="t1"))
            await wait_until(lambda: broker.door.forwarded)

    go(scenario())


def test_task_admitted_by_a_gateway_that_then_expired_fails(broker_world, go):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            # as a gateway writes it: the row is there, nothing has run
            digest = task_digest("echo", {"value": 1})
            waiting = NewTask("t1", "echo", b'{"value":1}', digest, expires_at=1.0)
            await broker.rows.publish([waiting])
            await world.start_controller()
            broker.door.bring(task(id="t1"), expires_at=1.0)
            assert (await world.ended_soon("t1")).error_code is FailureCode.EXPIRED

    go(scenario())


def test_task_that_waits_for_its_turn_or_its_time_goes_into_the_store(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            receipts = broker.door.bring(
                task(1, id="t1", group="a"), task(2, id="t2", delay_seconds=600), task(3, id="t3"), reply_to="answers"
            )
            await wait_until(lambda: set(receipts) <= set(broker.acked))
            assert [[each.id for each in call] for call in broker.door.forwarded] == [["t3"]]
            first, second = await world.row("t1"), await world.row("t2")
            assert (first.state, first.group, first.reply_to) == (TaskState.QUEUED, "a", "answers")
            assert second.not_before == pytest.approx(second.created_at + 600, abs=60)

    go(scenario())


def test_message_of_a_kept_task_that_comes_again_is_only_acknowledged(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            for _ in range(2):
                (receipt,) = broker.door.bring(task(1, id="t1", group="a"), reply_to="answers", correlation_id="c")
                await wait_until(lambda receipt=receipt: receipt in broker.acked)
            assert (await world.row("t1")).state is TaskState.QUEUED
            assert (broker.replies, broker.retried) == ([], [])

    go(scenario())


def test_second_sender_of_a_kept_task_is_answered_when_it_has_ended(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            broker.door.bring(task(1, id="t1", group="a"), reply_to="first")
            (receipt,) = broker.door.bring(task(1, id="t1", group="a"), reply_to="second")
            await wait_until(lambda: receipt in broker.acked)
            assert broker.retried, "it looks again later"
            await world.store.cancel("t1")
            broker.door.bring(task(1, id="t1", group="a"), reply_to="second")
            await wait_until(lambda: broker.replies)
            ((reply_to, _, told),) = broker.replies
            assert (reply_to, told["state"]) == ("second", "cancelled")

    go(scenario())


def test_kept_task_with_another_s_id_becomes_a_dead_letter(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            broker.door.bring(task(1, id="t1", group="a"))
            (receipt,) = broker.door.bring(task(2, id="t1", group="b"))
            await wait_until(lambda: receipt in broker.acked)
            (line,) = await world.store.dead_letters()
            assert (line.task_id, line.code) == ("t1", FailureCode.ID_CONFLICT)
            assert (await world.row("t1")).group == "a"

    go(scenario())


def test_message_that_has_expired_while_its_kept_task_runs_is_not_sent_round_in_circles(broker_world, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            world.tell_none()
            await world.start_controller()
            (first,) = broker.door.bring(task(1, id="t1", group="a"), reply_to="first")
            await wait_until(lambda: first in broker.acked)
            running = Delivery("t1", "echo", b'{"value":1}', task_digest("echo", {"value": 1}), attempt=1, receipt=None)
            await world.store.place([(running, Placement("t1", 1, "r1", "boot"))])
            (second,) = broker.door.bring(task(1, id="t1", group="a"), reply_to="second", expires_at=1.0)
            await wait_until(lambda: second in broker.acked)
            row = await world.row("t1")
            assert (row.state, row.error_code, row.group) == (TaskState.RUNNING, None, "a")
            assert broker.door.forwarded == []
            assert (broker.replies, list(await world.store.dead_letters())) == ([], [])

    go(scenario())
