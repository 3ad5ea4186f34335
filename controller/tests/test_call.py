"""A controller over real HTTP: what becomes of tasks when runners answer as the protocol allows, and otherwise."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from controller.batching import LatencyEstimate
from controller.call import RunnerCall
from controller.runs import InFlight, Run
from runnerlib.contract import FailureCode, Limits, RunnerLevel, RunnerView, TaskState
from taskqueue.tasks import Delivery, Retrying


@pytest.fixture
def started(worlds, make_runner):
    """``async with started() as (world, runner)``: tasks are served."""

    @asynccontextmanager
    async def opened():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            yield world, runner

    return opened


def test_task_reaches_its_runner_and_its_result_is_stored(started, go):
    async def scenario():
        async with started() as (world, _):
            await world.send(("t1", {"value": {"a": [1, 2.5, None, "ü"]}}))
            row = await world.ended("t1")
            assert row.state is TaskState.SUCCEEDED
            assert json.loads(row.result) == {"a": [1, 2.5, None, "ü"]}
            assert row.runner == "r1"
            assert world.health.is_ready

    go(scenario())


def test_many_tasks_end_once_each_on_sqlite(worlds, make_runner, go, tmp_path):
    async def scenario():
        async with worlds(tmp_path / "tasks.sqlite") as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(*((f"t{n}", {"value": n}) for n in range(500)))
            for n in range(500):
                row = await world.ended(f"t{n}")
                assert row.result == b"%d" % n
            assert len(runner.executions) == 500
            assert len([call for call in runner.calls if call[1]]) < 100

    go(scenario())


def test_transient_failure_is_retried_until_it_succeeds(started, go):
    async def scenario():
        async with started() as (world, runner):
            await world.send(("t1", {"do": "fail_until", "attempt": 3}))
            row = await world.ended("t1")
            assert row.state is TaskState.SUCCEEDED
            assert row.attempt == 3
            assert [entry.code for entry in row.history] == [FailureCode.HANDLER_ERROR] * 2
            assert runner.executions == [("t1", 1), ("t1", 2), ("t1", 3)]

    go(scenario())


def test_handler_failure_fails_when_the_retries_are_spent(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(retries=2)
            await world.start(make_runner())
            await world.send(("t1", {"do": "fail_until", "attempt": 99}))
            row = await world.ended("t1")
            assert (row.state, row.error_code, row.attempt) == (TaskState.FAILED, FailureCode.HANDLER_ERROR, 3)
            (letter,) = await world.store.dead_letters()
            assert letter.attempts == 3

    go(scenario())


def test_retry_that_is_handed_out_before_it_is_recorded_knows_the_failure_before_it(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(retries=1)
            await world.start(make_runner())
            record, handed_out = world.store.record, asyncio.Event()
            wait_for_earlier_attempts = InFlight.wait_for_earlier_attempts

            async def after_the_next_attempt_came(records):
                if isinstance(records[0], Retrying):
                    await handed_out.wait()
                return await record(records)

            async def note(in_flight, deliveries):
                if any(delivery.attempt == 2 for delivery in deliveries):
                    handed_out.set()
                await wait_for_earlier_attempts(in_flight, deliveries)

            world.store.record = after_the_next_attempt_came
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(InFlight, "wait_for_earlier_attempts", note)
                await world.send(("t1", {"do": "fail_until", "attempt": 99}))
                row = await world.ended("t1")
            assert (row.state, row.error_code, row.attempt) == (TaskState.FAILED, FailureCode.HANDLER_ERROR, 2)

    go(scenario())


def test_permanent_failure_is_not_retried_and_keeps_its_traceback(started, go):
    async def scenario():
        async with started() as (world, runner):
            error = {"code": "handler_error", "message": "ValueError: no", "traceback": "Traceback: here"}
            await world.send(("t1", {"do": "fail", "error": error}), ("t2", {"value": 2}))
            row = await world.ended("t1")
            assert (row.error_code, row.error_message) == (FailureCode.HANDLER_ERROR, "ValueError: no")
            (letter,) = await world.store.dead_letters()
            assert (await world.store.dead_letter(letter.dead_id)).traceback == "Traceback: here"
            assert (await world.ended("t2")).state is TaskState.SUCCEEDED
            assert runner.executions.count(("t1", 1)) == 1

    go(scenario())


def test_busy_runner_costs_no_attempt(worlds, make_runner, go, problem):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.refusals = [problem(429, "busy", headers={"Retry-After": "0.05"}) for _ in range(5)]
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())

    with capture_logs() as lines:
        go(scenario())
    again = [line["log_level"] for line in lines if "starts again" in line["event"]]
    assert again == ["debug"] * 5, "a runner may be busy twenty times a second"


def test_draining_runner_is_passed_over_for_another(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            draining, other = make_runner("r1"), make_runner("r2")
            draining.is_draining = True
            await world.start(draining, other)
            await world.send(*((f"t{n}", {"value": n}) for n in range(5)))
            for n in range(5):
                assert (await world.ended(f"t{n}")).attempt == 1
            assert not draining.executions

    go(scenario())


def test_unreachable_runner_is_quarantined_and_another_takes_over(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            gone, other = make_runner("r1"), make_runner("r2")
            await world.start(gone, other)
            await gone.kill()
            await world.send(*((f"t{n}", {"value": n}) for n in range(10)))
            for n in range(10):
                assert (await world.ended(f"t{n}")).attempt == 1
            assert world.metric("controller_runner_quarantines_total", runner="r1") == 1

    go(scenario())


@pytest.mark.serial
def test_tasks_wait_for_an_unreachable_runner_and_flow_at_its_next_boot(started, go, wait_until):
    async def scenario():
        async with started() as (world, runner):
            await runner.kill()
            await world.send(("t1", {"value": 1}))
            await wait_until(lambda: world.metric("controller_runner_quarantines_total", runner="r1") >= 1)
            await runner.start()
            world.tell()
            row = await world.ended("t1", 1.0)
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)

    go(scenario())


@pytest.mark.parametrize("cut", ["before", "after"])
def test_connection_cut_around_the_start_costs_no_attempt_and_no_second_run(worlds, make_runner, go, cut):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.cuts = [cut]
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_fifth_loss_of_a_whole_runner_fails_a_task_that_each_had_for_itself(started, go, wait_until):
    async def scenario():
        async with started() as (world, runner):
            await world.send(("t1", {"do": "hold"}))
            for attempt in range(1, 6):
                await wait_until(lambda attempt=attempt: ("t1", attempt) in runner.executions)
                await runner.kill()
                await runner.start()
                world.tell()
            row = await world.ended("t1")
            assert (row.state, row.error_code, row.attempt) == (TaskState.FAILED, FailureCode.RUNNER_LOST, 5)
            assert [entry.code for entry in row.history] == [FailureCode.RUNNER_LOST] * 5
            assert all(entry.whole_runner and "started anew" in entry.message for entry in row.history)

    go(scenario())


def test_lost_batch_charges_nobody_and_its_members_run_alone(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(batched=True, batch=4)
            runner = make_runner()
            await world.start()
            await world.send(*((f"t{n}", {"do": "hold"}) for n in range(4)))
            await runner.start()
            world.runners.append(runner)
            world.tell()
            await wait_until(lambda: len(runner.executions) == 4)
            assert runner.calls[0][0] == ["t0", "t1", "t2", "t3"]
            await runner.kill()
            runner.calls.clear()
            await runner.start()
            world.tell()
            for n in range(4):
                await wait_until(lambda n=n: (f"t{n}", 1) in runner.runs)
                runner.let_go(f"t{n}")
                row = await world.ended(f"t{n}")
                assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())
            assert [ids for ids, with_payload, _ in runner.calls if with_payload] == [["t0"], ["t1"], ["t2"], ["t3"]]

    go(scenario())


def test_silent_runner_is_lost_when_its_lease_is_over(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            world.lease_seconds = 0.5
            gone, other = make_runner("r1"), make_runner("r2")
            await world.start(gone)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: gone.started("t1"))
            await gone.kill()
            await other.start()
            world.runners.append(other)
            world.tell()
            await wait_until(lambda: ("t1", 2) in other.executions)
            other.let_go("t1")
            row = await world.ended("t1")
            assert [entry.code for entry in row.history] == [FailureCode.RUNNER_LOST]

    go(scenario())


def test_runner_that_the_catalogue_dropped_is_lost_at_once(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            gone, other = make_runner("r1"), make_runner("r2")
            await world.start(gone)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: gone.started("t1"))
            await other.start()
            world.runners.append(other)
            world.tell(other)
            await gone.kill()
            await wait_until(lambda: ("t1", 2) in other.executions, 5)

    go(scenario())


def test_dropped_runner_that_still_answers_finishes_its_run(started, go, wait_until):
    async def scenario():
        async with started() as (world, runner):
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1"))
            world.tell_none()
            runner.let_go("t1", 7)
            row = await world.ended("t1")
            assert (row.result, row.attempt) == (b"7", 1)

    go(scenario())


def test_run_handed_back_by_a_draining_runner_starts_elsewhere_uncounted(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            draining, other = make_runner("r1"), make_runner("r2")
            await world.start(draining)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: draining.started("t1"))
            await other.start()
            world.runners.append(other)
            world.tell(other)
            draining.hand_back()
            await wait_until(lambda: ("t1", 1) in other.executions)
            other.let_go("t1")
            row = await world.ended("t1")
            assert (row.attempt, row.history) == (1, ())

    go(scenario())


def test_payload_refused_by_the_runner_is_permanent(worlds, make_runner, go, problem):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.refusals = [problem(422, "invalid_payload", "'text' is missing")]
            await world.start(runner)
            await world.send(("t1", {}))
            row = await world.ended("t1")
            assert (row.error_code, row.error_message) == (FailureCode.INVALID_PAYLOAD, "'text' is missing")

    go(scenario())


def test_refused_call_with_several_tasks_is_repeated_one_by_one(worlds, make_runner, go, problem):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(batched=True, batch=8)
            runner = make_runner()

            def refuse(items):
                bad = any(item["payload"].get("bad") for item in items)
                return problem(400, "malformed", "one is bad") if bad else None

            runner.on_batch = refuse
            await world.start()
            await world.send(("bad", {"bad": True}), *((f"t{n}", {"value": n}) for n in range(3)))
            await runner.start()
            world.runners.append(runner)
            world.tell()
            assert (await world.ended("bad")).error_code is FailureCode.INVALID_PAYLOAD
            for n in range(3):
                assert (await world.ended(f"t{n}")).state is TaskState.SUCCEEDED

    go(scenario())


def test_algorithm_that_the_runner_does_not_have_costs_no_attempt(worlds, make_runner, go, problem):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.refusals = [problem(404, "unknown_algorithm")]
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)

    go(scenario())


@pytest.mark.parametrize(
    "payload",
    [{"do": "no_result"}, {"value": "x" * 2000}, {"value": "x" * 200_000}],
    ids=["none", "large", "huge"],
)
def test_answer_without_a_result_or_larger_than_allowed_is_a_bad_result(worlds, make_runner, go, payload):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(result_bytes=1000)
            await world.start(make_runner())
            await world.send(("t1", payload))
            assert (await world.ended("t1")).error_code is FailureCode.BAD_RESULT

    go(scenario())


def test_seconds_left_travel_with_each_task(started, go):
    async def scenario():
        async with started() as (world, runner):
            await world.send(("t1", {"value": 1}), expires_at=time.time() + 100)
            await world.send(("t2", {"value": 1}))
            await world.ended("t1")
            await world.ended("t2")
            deadlines = {item["id"]: item.get("deadline") for item in runner.items}
            assert 90 < deadlines["t1"] <= 100
            assert deadlines["t2"] is None

    go(scenario())


def test_plain_runner_takes_tasks_one_by_one(worlds, make_runner, go, problem):
    async def scenario():
        async with worlds() as world:
            runner = make_runner(level="plain")
            runner.refusals = [problem(500, "", "broken", retryable=True), problem(422, "x", "no such field")]
            await world.start(runner)
            await world.send(("t1", {"value": 1}), ("t2", {"value": 2}), ("t3", {"value": 3}))
            rows = [await world.ended(f"t{n}") for n in (1, 2, 3)]
            assert [row.result for row in rows if row.result] == [b"1", b"3"]
            assert [row.attempt for row in rows] == [2, 1, 1]
            assert rows[1].error_code is FailureCode.INVALID_PAYLOAD
            assert not runner.calls

    go(scenario())


def test_plain_runner_that_is_lost_costs_an_attempt(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner(level="plain")
            runner.cuts = ["x"]
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert row.attempt == 2
            assert [entry.code for entry in row.history] == [FailureCode.RUNNER_LOST]

    go(scenario())


def test_plain_runner_that_can_be_reached_again_is_not_out_of_reach_while_it_works(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(slots=2)
            runner, ended, started = make_runner(level="plain"), asyncio.Event(), []

            async def hold(request):
                started.append(request.headers["Task-Id"])
                await ended.wait()
                return web.json_response({"result": 1})

            runner._run = hold
            await world.start(runner)
            await runner.kill()
            await world.send(("t1", {}), ("t2", {}))
            await wait_until(lambda: world.metric("controller_runner_quarantines_total", runner="r1") >= 1)
            await runner.start()
            await wait_until(lambda: sorted(started) == ["t1", "t2"])
            ended.set()
            assert (await world.ended("t1")).state is (await world.ended("t2")).state is TaskState.SUCCEEDED

    go(scenario())


@pytest.mark.parametrize(("attach", "running_seconds"), [(False, 21.0), (True, 91.0)])
def test_run_that_is_attached_to_has_the_time_of_a_whole_batch(attach, running_seconds):
    limits = Limits(timeout_seconds=10, batch=8)
    directory = SimpleNamespace(limits=lambda name: limits, shared_limits=lambda runner: [limits])
    context = SimpleNamespace(directory=directory, margin_seconds=1.0, clock=lambda: 0.0)
    runner = RunnerView(id="r", name="r", host="http://h:1", boot="b1", level=RunnerLevel.FULL, algorithms=["a"])
    run = Run(Delivery("t1", "a", b"{}", "digest", 1, None))
    call = RunnerCall(context, LatencyEstimate(), "a", runner, [run], attach=attach)
    assert call._deadline.running == running_seconds
