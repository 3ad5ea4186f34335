"""Tasks of a broker, of which the store knows nothing until they end: answers, repetitions, used ids, cancelling."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from runnerlib.contract import FailureCode, Limits, TaskState
from taskqueue.errors import QueueUnavailable, StoreUnavailable
from taskqueue.tasks import Cancelled, Delivery, NewTask, Succeeded

ASKED = {"reply_to": "answers", "correlation_id": "c"}


@pytest.fixture
def started(broker_world, make_runner):
    """``async with started() as (world, broker, runner)``: tasks are served."""

    @asynccontextmanager
    async def opened(slots=1):
        async with broker_world() as (world, broker):
            world.limits["echo"] = Limits(slots=slots)
            runner = make_runner()
            await world.start(runner)
            yield world, broker, runner

    return opened


def told(broker):
    return [(to, correlation, each["state"], each.get("result")) for to, correlation, each in broker.replies]


def test_answer_is_sent_after_the_commit_and_before_the_acknowledgement(broker_world, make_runner, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            steps, record, reply, ack = [], world.store.record, broker.reply, broker.ack

            async def spying(name, call, argument):
                result = await call(argument)
                steps.append(name)
                return result

            world.store.record = lambda records: spying("record", record, records)
            broker.reply = lambda replies: spying("reply", reply, replies)
            broker.ack = lambda deliveries: spying("ack", ack, deliveries)
            await world.start(make_runner())
            await broker.deliver(("t1", {"value": 1}), **ASKED)
            await wait_until(lambda: "ack" in steps)
            assert steps == ["record", "reply", "ack"]
            assert told(broker) == [("answers", "c", "succeeded", 1)]

    go(scenario())


def test_nothing_is_acknowledged_while_the_store_is_away(broker_world, make_runner, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            record, away = world.store.record, True

            async def failing(records):
                if away:
                    raise StoreUnavailable("planted")
                return await record(records)

            world.store.record = failing
            runner = make_runner()
            await world.start(runner)
            await broker.deliver(*((f"t{n}", {"value": n}) for n in range(5)), **ASKED)
            await wait_until(lambda: "store" in world.health.reasons)
            await broker.deliver(("later", {}))
            assert (broker.acked, broker.replies) == ([], [])
            assert not runner.started("later")
            away = False
            await wait_until(lambda: len(broker.acked) == 6)
            assert len(broker.replies) == 5
            assert world.health.is_ready

    go(scenario())


def test_answer_is_repeated_until_the_broker_has_it(broker_world, make_runner, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            reply, troubles = broker.reply, [QueueUnavailable("planted")]

            async def failing(replies):
                if troubles:
                    raise troubles.pop()
                await reply([each for each in replies if not each.reply_to.startswith("tasks")])

            broker.reply = failing
            await world.start(make_runner())
            await broker.deliver(("t1", {"value": 1}), **ASKED)
            await wait_until(lambda: broker.acked)
            assert told(broker) == [("answers", "c", "succeeded", 1)]

    go(scenario())


@pytest.mark.parametrize("held", [{"value": 1}, {"do": "fail_until", "attempt": 2}])
def test_broker_that_accepts_nothing_is_still_relieved_of_what_it_has(broker_world, make_runner, go, wait_until, held):
    async def scenario():
        async with broker_world() as (world, broker):
            reply, retry, alarm = broker.reply, broker.retry, True

            async def unless_alarm(call, *arguments):
                if alarm:
                    raise QueueUnavailable("planted")
                await call(*arguments)

            broker.reply = lambda replies: unless_alarm(reply, replies)
            broker.retry = lambda deliveries, seconds: unless_alarm(retry, deliveries, seconds)
            world.limits["echo"] = Limits(slots=4)
            runner = make_runner()
            await world.start(runner)
            await broker.deliver(("held", held), **ASKED)
            await wait_until(lambda: runner.started("held"))
            await broker.deliver(*((f"t{n}", {"value": n}) for n in range(20)))
            await wait_until(lambda: len(broker.acked) == 20)
            assert broker.replies == []
            assert world.health.is_ready
            alarm = False
            await wait_until(lambda: [each["id"] for _, _, each in broker.replies if "id" in each] == ["held"])

    go(scenario())


def test_answer_that_the_broker_never_takes_is_given_up_alone(broker_world, make_runner, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            reply = broker.reply

            async def failing(replies):
                if any(each.reply_to == "poison" for each in replies):
                    raise QueueUnavailable("planted")
                await reply([each for each in replies if not each.reply_to.startswith("tasks")])

            broker.reply = failing
            for n in range(5):
                await broker.deliver((f"t{n}", {"value": n}), reply_to="poison" if n == 2 else f"a{n}")
                await world.store.cancel(f"t{n}")
            runner = make_runner()
            await world.start(runner)
            await wait_until(lambda: len(broker.acked) == 5)
            assert sorted(to for to, _, _, _ in told(broker)) == ["a0", "a1", "a3", "a4"]
            assert world.health.is_ready

    go(scenario())


def test_failure_is_answered_and_a_retry_is_not(started, go, wait_until):
    async def scenario():
        async with started() as (_, broker, _):
            await broker.deliver(("t1", {"do": "fail_until", "attempt": 3}), ("t2", {"do": "no_result"}), **ASKED)
            await wait_until(lambda: len(broker.replies) == 2)
            answers = {each["id"]: each for _, _, each in broker.replies}
            assert (answers["t1"]["attempt"], answers["t1"]["result"]) == (3, 3)
            assert answers["t2"]["error"]["code"] == "bad_result"

    go(scenario())


def test_every_sender_of_the_same_task_gets_its_answer(started, go, wait_until):
    async def scenario():
        async with started(slots=4) as (_, broker, runner):
            await broker.deliver(("t1", {"do": "hold"}), reply_to="a", correlation_id="1")
            await wait_until(lambda: runner.started("t1"))
            await broker.deliver(("t1", {"do": "hold"}), reply_to="b", correlation_id="2")
            await broker.deliver(("t1", {"do": "hold"}), reply_to="a", correlation_id="1", delivery_count=1)
            await broker.deliver(("t1", {"do": "hold"}))
            await wait_until(lambda: not broker.waiting["echo"])
            runner.let_go("t1", 5)
            await wait_until(lambda: len(broker.acked) == 4)
            assert told(broker) == [("a", "1", "succeeded", 5), ("b", "2", "succeeded", 5)]
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_every_sender_of_a_task_that_is_retried_gets_its_answer(started, go, wait_until):
    async def scenario():
        async with started() as (_, broker, runner):
            payload = {"do": "fail_until", "attempt": 2}
            await broker.deliver(("t1", payload), reply_to="a")
            await broker.deliver(("t1", payload), reply_to="b")
            await wait_until(lambda: len(broker.replies) == 2)
            assert told(broker) == [("a", None, "succeeded", 2), ("b", None, "succeeded", 2)]
            assert runner.executions == [("t1", 1), ("t1", 2)]

    go(scenario())


def test_every_sender_of_a_run_that_is_retried_gets_its_answer(started, go, wait_until):
    async def scenario():
        async with started(slots=4) as (_, broker, runner):
            await broker.deliver(("t1", {"do": "hold"}), reply_to="a")
            await wait_until(lambda: runner.started("t1"))
            await broker.deliver(("t1", {"do": "hold"}), reply_to="b")
            await wait_until(lambda: not broker.waiting["echo"])
            runner.fail("t1", {"code": "handler_error", "message": "not yet", "retryable": True})
            await wait_until(lambda: ("t1", 2) in runner.executions)
            await wait_until(lambda: not broker.waiting["echo"])
            runner.let_go("t1", 5)
            await wait_until(lambda: len(broker.replies) == 2)
            assert sorted(told(broker)) == [("a", None, "succeeded", 5), ("b", None, "succeeded", 5)]
            assert broker.retried == [(2, 0.05), (2, 0.05)]

    go(scenario())


def test_task_that_had_ended_is_answered_from_the_record(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            await broker.deliver(("t1", {"value": 1}))
            await world.ended_soon("t1")
            await broker.deliver(("t1", {"value": 1}), delivery_count=1, **ASKED)
            await wait_until(lambda: broker.replies)
            assert told(broker) == [("answers", "c", "succeeded", 1)]
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_outcome_that_comes_second_is_answered_with_the_first(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            (ours,) = await broker.deliver(("t1", {"do": "hold"}), **ASKED)
            await wait_until(lambda: runner.started("t1"))
            await world.store.record([Succeeded(ours, b'"first"')])
            runner.let_go("t1", "second")
            await wait_until(lambda: broker.acked)
            assert told(broker) == [("answers", "c", "succeeded", "first")]
            assert (await world.row("t1")).result == b'"first"'

    go(scenario())


def test_used_id_fails_alone(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            await broker.deliver(("t1", {"value": 1}))
            first = await world.ended_soon("t1")
            await broker.deliver(("t1", {"value": 2}), headers={"x": "y"}, body=b"as it came", **ASKED)
            await wait_until(lambda: len(broker.acked) == 2)
            ((_, _, answer),) = broker.replies
            assert (answer["id"], answer["state"], answer["error"]["code"]) == ("t1", "failed", "id_conflict")
            (line,) = await world.store.dead_letters()
            letter = await world.store.dead_letter(line.dead_id)
            assert (letter.task_id, letter.code) == ("t1", FailureCode.ID_CONFLICT)
            assert (letter.body, letter.headers) == (b"as it came", {"x": "y"})
            assert await world.row("t1") == first
            assert runner.executions == [("t1", 1)]
            labels = {"algorithm": "echo", "outcome": "failed", "code": "id_conflict"}
            assert world.metric("controller_outcomes_total", **labels) == 1

    go(scenario())


def test_id_that_is_used_twice_at_the_same_time_fails_alone(started, go, wait_until):
    async def scenario():
        async with started(slots=4) as (_, broker, runner):
            await broker.deliver(("t1", {"do": "hold"}), reply_to="a")
            await wait_until(lambda: runner.started("t1"))
            await broker.deliver(("t1", {"value": 2}), reply_to="b")
            await wait_until(lambda: broker.replies)
            assert broker.replies[0][0] == "b"
            assert broker.replies[0][2]["error"]["code"] == "id_conflict"
            runner.let_go("t1", 1)
            await wait_until(lambda: len(broker.acked) == 2)
            assert told(broker)[1:] == [("a", None, "succeeded", 1)]

    go(scenario())


def test_id_that_another_controller_used_meanwhile_is_found_when_the_outcome_is_written(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            await broker.deliver(("t1", {"do": "hold"}), **ASKED)
            await wait_until(lambda: runner.started("t1"))
            await world.store.record([Succeeded(Delivery("t1", "echo", b"{}", "other", 1, None), b"1")])
            runner.let_go("t1", 2)
            await wait_until(lambda: broker.acked)
            assert broker.replies[0][2]["error"]["code"] == "id_conflict"
            (letter,) = await world.store.dead_letters()
            assert letter.code is FailureCode.ID_CONFLICT

    go(scenario())


@pytest.mark.parametrize("seen_by_the_store", [True, False])
def test_task_cancelled_while_it_waits_never_runs_and_is_answered(
    broker_world, make_runner, go, wait_until, seen_by_the_store
):
    async def scenario():
        async with broker_world() as (world, broker):
            (delivery,) = await broker.deliver(("t1", {"value": 1}), **ASKED)
            if seen_by_the_store:
                await broker.rows.publish([NewTask("t1", "echo", delivery.payload, delivery.digest)])
            await world.store.cancel("t1")
            runner = make_runner()
            await world.start(runner)
            await wait_until(lambda: broker.acked)
            assert told(broker) == [("answers", "c", "cancelled", None)]
            assert runner.executions == []

    go(scenario())


def test_task_that_runs_while_its_row_is_still_queued_is_stopped_when_it_is_cancelled(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            (delivery,) = await broker.deliver(("t1", {"do": "hold"}), **ASKED)
            await broker.rows.publish([NewTask("t1", "echo", delivery.payload, delivery.digest)])
            await wait_until(lambda: runner.started("t1"))
            await world.store.cancel("t1")
            await wait_until(lambda: broker.acked)
            assert runner.deleted == ["t1"]
            assert (await world.row("t1")).state is TaskState.CANCELLED
            assert told(broker) == [("answers", "c", "cancelled", None)]

    go(scenario())


def test_outcome_of_a_cancelled_task_is_not_kept(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            (ours,) = await broker.deliver(("t1", {"do": "hold"}), **ASKED)
            await wait_until(lambda: runner.started("t1"))
            await world.store.record([Cancelled(ours)])
            runner.let_go("t1", 1)
            await wait_until(lambda: broker.acked)
            row = await world.row("t1")
            assert (row.state, row.result) == (TaskState.CANCELLED, None)
            assert told(broker) == [("answers", "c", "cancelled", None)]

    go(scenario())


def test_expired_task_without_a_row_fails_and_is_answered(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            await broker.deliver(("t1", {"value": 1}), expires_at=1.0, **ASKED)
            await wait_until(lambda: broker.acked)
            assert broker.replies[0][2]["error"]["code"] == "expired"
            assert (await world.row("t1")).error_code is FailureCode.EXPIRED
            assert runner.executions == []

    go(scenario())


def test_task_handed_out_before_is_looked_for_although_the_store_knows_nothing_of_it(started, go, wait_until):
    async def scenario():
        async with started() as (world, broker, runner):
            await broker.deliver(("t1", {"value": 1}), delivery_count=1)
            await world.ended_soon("t1")
            assert [with_payload for _, with_payload, _ in runner.calls] == [False, True]

    go(scenario())


def test_task_that_a_plain_runner_has_is_seen_to_run_and_cannot_be_attached_to(
    broker_world, make_runner, go, wait_until
):
    async def scenario():
        async with broker_world() as (world, broker):
            runner, let_go, placed = make_runner(level="plain"), asyncio.Event(), []
            answer, place = runner._run, world.store.place

            async def slow(request):
                await let_go.wait()
                return await answer(request)

            async def spy(placements):
                await place(placements)
                placed.extend(placements)

            runner._run, world.store.place = slow, spy
            await world.start(runner)
            await broker.deliver(("t1", {"value": 1}))
            await wait_until(lambda: placed)
            row = await world.row("t1")
            assert (row.state, row.placement, row.runner) == (TaskState.RUNNING, None, runner.view.id)
            let_go.set()
            assert (await world.ended_soon("t1")).result == b"1"
            assert len(placed) == 1

    go(scenario())


def test_message_that_joins_while_its_retry_is_committed_goes_on_too(broker_world, make_runner, go, wait_until):
    def has_joined():
        return any("handed out again" in line["event"] for line in lines)

    async def scenario():
        async with broker_world() as (world, broker):
            record, twin = world.store.record, ("t1", {"do": "fail_until", "attempt": 2})

            async def recording(records):
                if not has_joined():
                    await broker.deliver(twin, reply_to="answers", delivery_count=1)
                    await wait_until(has_joined)
                return await record(records)

            world.store.record = recording
            await world.start(make_runner())
            await broker.deliver(twin, **ASKED)
            await wait_until(lambda: len(broker.replies) == 2)
            assert sorted(told(broker), key=str) == [
                ("answers", "c", "succeeded", 2),
                ("answers", None, "succeeded", 2),
            ]

    with capture_logs() as lines:
        go(scenario())
