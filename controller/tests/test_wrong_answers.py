"""A controller over real HTTP: what becomes of tasks whose runners garble answers, lie, or never come to an end."""

import json

import pytest
from aiohttp import web

from runnerlib.contract import FailureCode, Limits, TaskState
from taskqueue.tasks import Delivery, Succeeded


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
def test_what_a_runner_claims_against_the_store_ends_no_task(worlds, make_runner, go, claim):
    async def scenario():
        async with worlds() as world:
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
    monkeypatch.setattr("controller.outcomes.RUNNER_PAUSE_SECONDS", 0.01)

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
            runner = said_of_attempt(state, 99)(make_runner())
            await world.start(runner, runner_margin_seconds=1.0)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1", 30)
            assert (row.state, row.error_code, row.attempt) == (TaskState.FAILED, FailureCode.TIMEOUT, 2)
            assert f"called it {state} for" in row.error_message
            assert runner.deleted == ["t1", "t1"], "what is not waited for is asked to stop"

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


def test_calls_that_are_refused_unreadably_are_a_bad_result_and_no_lost_runner(worlds, make_runner, go, monkeypatch):
    monkeypatch.setattr("controller.outcomes.RUNNER_PAUSE_SECONDS", 0.01)

    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.on_batch = lambda items: web.Response(status=500, text="boom")
            await world.start(runner)
            await world.send(("t1", {}))
            row = await world.ended("t1")
            assert (row.state, row.error_code, row.attempt) == (TaskState.FAILED, FailureCode.BAD_RESULT, 1)
            assert "answered 500" in row.error_message

    go(scenario())


def test_busy_answer_of_another_process_loses_the_runs_of_the_one_before(worlds, make_runner, go, problem):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()

            def says(items):
                if "payload" not in items[0]:
                    return problem(429, "busy", headers={"Retry-After": "0.05", "Runner-Boot": "another"})
                if items[0]["attempt"] == 1:
                    return web.json_response([{"id": "t1", "attempt": 1, "state": "running"}])
                return None

            runner.says = says
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 2)
            assert [entry.code for entry in row.history] == [FailureCode.RUNNER_LOST]
            assert "started anew" in row.history[0].message

    go(scenario())


def test_call_that_arrived_ends_a_row_of_lost_ones(worlds, make_runner, go, monkeypatch, wait_until):
    monkeypatch.setattr("controller.outcomes.RUNNER_PAUSE_SECONDS", 0.01)

    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.cuts = ["before"] * 4
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1") and not runner.calls[-1][1])
            runner.cuts = ["before"] * 4
            runner.hand_back()
            runner.is_draining = False
            await wait_until(lambda: len(runner.executions) == 2)
            runner.let_go("t1")
            row = await world.ended("t1")
            assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())

    go(scenario())


def test_runner_whose_answers_find_no_room_is_not_silent(worlds, make_runner, go, monkeypatch, wait_until):
    monkeypatch.setattr("controller.runner_client.MAX_BODIES_BYTES", 100_000)

    async def scenario():
        async with worlds() as world:
            world.lease_seconds = 0.3
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"value": "x" * 200_000}))
            await wait_until(lambda: len(runner.calls) >= 6)
            monkeypatch.setattr("controller.runner_client.MAX_BODIES_BYTES", 1_000_000)
            row = await world.ended("t1")
            assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())
            assert runner.executions == [("t1", 1)]

    go(scenario())
