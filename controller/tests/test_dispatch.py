"""A controller over real HTTP: what becomes of tasks when runners answer as the protocol allows, and otherwise."""

import json
import time

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from runnerlib.contract import FailureCode, Limits, TaskState
from taskqueue.tasks import Delivery, Succeeded


def test_task_reaches_its_runner_and_its_result_is_stored(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
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


def test_transient_failure_is_retried_until_it_succeeds(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
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


def test_permanent_failure_is_not_retried_and_keeps_its_traceback(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
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


def test_tasks_wait_for_an_unreachable_runner_and_flow_at_its_next_boot(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await runner.kill()
            await world.send(("t1", {"value": 1}))
            await wait_until(lambda: world.metric("controller_runner_quarantines_total", runner="r1") >= 1)
            await runner.start()
            world.tell()
            row = await world.ended("t1", 1.0)
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)

    go(scenario())


def test_connection_cut_after_the_start_attaches_to_the_run(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.cuts = ["after"]
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_connection_cut_before_the_start_sends_the_same_attempt_again(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.cuts = ["before"]
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_fifth_loss_of_a_whole_runner_fails_a_task_that_each_had_for_itself(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
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


def test_dropped_runner_that_still_answers_finishes_its_run(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
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


def test_answer_without_a_result_is_a_bad_result(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            await world.start(make_runner())
            await world.send(("t1", {"do": "no_result"}))
            assert (await world.ended("t1")).error_code is FailureCode.BAD_RESULT

    go(scenario())


def test_one_garbled_answer_costs_nothing(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            garbled = [web.Response(text="<html>busy</html>", content_type="text/html")]
            runner.says = lambda items: garbled.pop() if garbled else None
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_task_of_a_runner_that_garbles_its_answers_goes_to_another(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            garbling, other = make_runner("r1"), make_runner("r2")
            garbling.says = lambda items: web.Response(text="[{")
            await world.start(garbling, other)
            await world.send(*((f"t{n}", {"value": n}) for n in range(6)))
            for n in range(6):
                row = await world.ended(f"t{n}")
                assert (row.state, row.attempt, row.runner) == (TaskState.SUCCEEDED, 1, "r2")

    go(scenario())


def test_answers_that_are_garbled_again_and_again_are_a_bad_result(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.says = lambda items: web.Response(text="hello")
            await world.start(runner)
            await world.send(("t1", {}))
            row = await world.ended("t1")
            assert (row.error_code, row.attempt) == (FailureCode.BAD_RESULT, 1)
            assert "not JSON" in row.error_message

    go(scenario())


def test_entry_that_cannot_be_read_costs_its_neighbours_nothing(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(batched=True, batch=4)
            runner = make_runner()

            def one_is_bad(items):
                entries = [runner._entry(item) for item in items]
                for entry in entries:
                    if entry["id"] == "bad":
                        entry["state"] = "finished"
                return web.json_response(entries)

            runner.says = one_is_bad
            await world.start()
            await world.send(("bad", {}), *((f"t{n}", {"value": n}) for n in range(3)))
            await runner.start()
            world.runners.append(runner)
            world.tell()
            for n in range(3):
                assert (await world.ended(f"t{n}")).state is TaskState.SUCCEEDED
            row = await world.ended("bad")
            assert (row.error_code, row.attempt) == (FailureCode.BAD_RESULT, 1)
            assert "no state 'finished'" in row.error_message
            assert all(runner.executions.count((f"t{n}", 1)) == 1 for n in range(3))
            asked = [ids for ids, _, _ in runner.calls if "t0" in ids]
            assert len(asked) == 1, "neighbours are not asked for again"

    go(scenario())


def test_two_entries_for_one_run_are_never_a_result(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.says = lambda items: web.json_response(
                [{"id": item["id"], "attempt": item["attempt"], "state": "succeeded", "result": n}
                 for item in items for n in (1, 2)]
            )  # fmt: skip
            await world.start(runner)
            await world.send(("t1", {}))
            row = await world.ended("t1")
            assert (row.error_code, row.result) == (FailureCode.BAD_RESULT, None)

    go(scenario())


def test_integer_beyond_64_bit_is_a_bad_result_and_no_float(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.says = lambda items: web.json_response(
                text=json.dumps([{"id": "t1", "attempt": 1, "state": "succeeded", "result": 2**80}])
            )
            await world.start(runner)
            await world.send(("t1", {}))
            row = await world.ended("t1")
            assert (row.error_code, row.result) == (FailureCode.BAD_RESULT, None)
            assert "64 bits" in row.error_message
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_redirect_is_not_followed_and_fails_in_words(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner, other = make_runner("r1"), make_runner("r2")
            await other.start()
            target = f"http://127.0.0.1:{other.port}/batch/echo"
            runner.says = lambda items: web.Response(status=307, headers={"Location": target})
            await world.start(runner)
            await world.send(("t1", {}))
            row = await world.ended("t1")
            assert row.error_code is FailureCode.BAD_RESULT
            assert "answered 307" in row.error_message
            assert not other.calls
            await other.kill()

    go(scenario())


def test_answer_larger_than_allowed_is_a_bad_result(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(result_bytes=1000)
            await world.start(make_runner())
            await world.send(("large", {"value": "x" * 2000}), ("huge", {"value": "x" * 200_000}))
            assert (await world.ended("large")).error_code is FailureCode.BAD_RESULT
            assert (await world.ended("huge")).error_code is FailureCode.BAD_RESULT

    go(scenario())


def said_of_attempt(state, until_attempt=1, **more):
    """A runner that says this of every attempt up to that one, and the truth of later ones."""

    def of(runner):
        def says(items):
            return web.json_response(
                [
                    {"id": item["id"], "attempt": item["attempt"], "state": state, **more}
                    if item["attempt"] <= until_attempt
                    else runner._entry(item)
                    for item in items
                ]
            )

        runner.says = says
        return runner

    return of


CLAIMS = {
    "stale_attempt": {"state": "stale_attempt"},
    "cancelled": {"state": "cancelled"},
    "id_conflict": {"state": "failed", "error": {"code": "id_conflict", "message": "another task"}},
    "expired": {"state": "failed", "error": {"code": "expired", "message": "too late"}},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_what_a_runner_claims_against_the_store_ends_no_task(worlds, make_runner, go, tmp_path, claim, store):
    async def scenario():
        async with worlds(None if store == "memory" else tmp_path / "tasks.sqlite") as world:
            await world.start(said_of_attempt(**claim)(make_runner()))
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.result, row.attempt) == (TaskState.SUCCEEDED, b"1", 2)
            assert [entry.code for entry in row.history] == [FailureCode.BAD_RESULT]
            assert "the store knows nothing" in row.history[0].message

    go(scenario())


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_what_a_runner_claims_for_ever_fails_with_a_dead_letter(worlds, make_runner, go, claim):
    async def scenario():
        async with worlds() as world:
            await world.start(said_of_attempt(until_attempt=99, **claim)(make_runner()))
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.error_code, row.attempt) == (TaskState.FAILED, FailureCode.BAD_RESULT, 3)
            (letter,) = await world.store.dead_letters()
            assert (letter.task_id, letter.attempts) == ("t1", 3)

    go(scenario())


def test_task_of_a_runner_that_claims_a_higher_attempt_goes_to_another(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            liar, other = said_of_attempt("stale_attempt", 99)(make_runner("r1")), make_runner("r2")
            await world.start(liar, other)
            await world.send(*((f"t{n}", {"value": n}) for n in range(4)))
            for n in range(4):
                row = await world.ended(f"t{n}")
                assert (row.state, row.attempt, row.runner) == (TaskState.SUCCEEDED, 1, "r2")

    go(scenario())


def test_stale_run_is_dropped_when_the_store_has_its_outcome(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1"))
            await world.until_row("t1", lambda row: row.placement)
            delivery = Delivery("t1", "echo", b'{"do":"hold"}', (await world.row("t1")).digest, 1, None)
            assert await world.store.record([Succeeded(delivery, b'"by another"')]) == [True]
            runner.runs["t1", 1]["state"] = "stale_attempt"
            runner.done["t1", 1].set()
            await wait_until(
                lambda: world.metric("controller_outcomes_total", algorithm="echo", outcome="dropped", code="") == 1
            )
            assert (await world.row("t1")).result == b'"by another"'

    go(scenario())


def test_runner_that_takes_a_task_and_gives_it_back_for_ever_fails_it(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            await world.start(said_of_attempt("unknown", 99)(make_runner()))
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.error_code) == (TaskState.FAILED, FailureCode.BAD_RESULT)
            assert "again and again" in row.error_message

    go(scenario())


def test_calls_that_never_arrive_count_in_the_end(worlds, make_runner, go, monkeypatch):
    monkeypatch.setattr("controller.dispatch.REST_SECONDS", 0.01)

    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.cuts = ["before"] * 1000
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.error_code) == (TaskState.FAILED, FailureCode.RUNNER_LOST)
            assert "lost 5 times in a row" in row.history[0].message
            assert not runner.executions

    go(scenario())


@pytest.mark.parametrize("state", ["running", "waiting"])
def test_run_that_is_never_said_to_have_ended_fails_as_a_timeout(worlds, make_runner, go, state):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(timeout_seconds=0.2, retries=1, batch=1)
            await world.start(said_of_attempt(state, 99)(make_runner()), runner_margin_seconds=1.0)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1", 30)
            assert (row.state, row.error_code, row.attempt) == (TaskState.FAILED, FailureCode.TIMEOUT, 2)
            assert f"called it {state} for" in row.error_message

    go(scenario())


def test_runner_that_is_busy_for_ever_when_asked_for_a_run_loses_it(worlds, make_runner, go, problem):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(timeout_seconds=0.2, retries=0, batch=1)
            runner = make_runner()

            def says(items):
                if "payload" in items[0]:
                    return web.json_response([{"id": "t1", "attempt": 1, "state": "running"}])
                return problem(429, "busy", headers={"Retry-After": "0.05"})

            runner.says = says
            await world.start(runner, runner_margin_seconds=1.0)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1", 30)
            assert (row.state, row.error_code) == (TaskState.FAILED, FailureCode.TIMEOUT)

    go(scenario())


def test_run_within_its_time_limit_is_left_alone(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(timeout_seconds=3, retries=0, batch=1)
            runner = make_runner()
            await world.start(runner, runner_margin_seconds=1.0)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: sum("t1" in ids for ids, _, _ in runner.calls) >= 3)
            runner.let_go("t1", "in time")
            row = await world.ended("t1")
            assert (row.state, row.result, row.attempt) == (TaskState.SUCCEEDED, b'"in time"', 1)

    go(scenario())


def test_runner_that_does_not_wait_with_its_answers_is_not_asked_without_a_pause(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = said_of_attempt("running", 99)(make_runner())
            await world.start(runner)
            await world.send(("t1", {}))
            await world.until_row("t1", lambda row: row.placement)
            assert len(runner.calls) < 15

    go(scenario())


def test_seconds_left_travel_with_each_task(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
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
