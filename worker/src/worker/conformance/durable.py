"""Level durable: a run belongs to one attempt at a task."""

from runnerlib.contract import EntryState, new_task_id
from worker.conformance import expecting
from worker.conformance.bench import Bench
from worker.conformance.checks import Check
from worker.conformance.errors import Broken
from worker.conformance.levels import Level
from worker.conformance.long_runs import LONG_RUNS
from worker.conformance.subject import other_than


async def _kept(bench: Bench) -> None:
    id = new_task_id()
    first = expecting.result(await bench.run(bench.subject.payload, id))
    before = await bench.task(id)
    second = expecting.result(await bench.run(bench.subject.payload, id))
    after = await bench.task(id)
    if second != first:
        raise Broken("the second answer has another result")
    if after.seconds != before.seconds:
        raise Broken(f"it ran again: the run took {before.seconds} s, then {after.seconds} s")


async def _conflict(bench: Bench) -> None:
    id = new_task_id()
    expecting.result(await bench.run(bench.subject.payload, id))
    answer = await bench.run(other_than(bench.subject.payload), id)
    if answer.status not in (400, 422):
        expecting.refusal(answer, 409, "id_conflict")


async def _task(bench: Bench) -> None:
    id = new_task_id()
    result = expecting.result(await bench.run(bench.subject.payload, id))
    entry = expecting.state(await bench.task(id), EntryState.SUCCEEDED)
    if (entry.id, entry.attempt, entry.result) != (id, 1, result):
        raise Broken("the entry has another id, attempt or result than the run")


async def _unknown_task(bench: Bench) -> None:
    path = f"/tasks/{new_task_id()}"
    expecting.status(await bench.asker.get(path), 404)
    expecting.status(await bench.asker.delete(path), 404)


async def _attempts(bench: Bench) -> None:
    id = new_task_id()
    expecting.result(await bench.run(bench.subject.payload, id, 1))
    expecting.result(await bench.run(bench.subject.payload, id, 2))
    entry = await bench.task(id)
    if entry.attempt != 2:
        raise Broken(f"after attempt 2 GET /tasks/{{id}} tells of attempt {entry.attempt}")
    expecting.refusal(await bench.run(bench.subject.payload, id, 1), 409, "stale_attempt")


_D = Level.DURABLE
DURABLE = (
    Check("kept", _D, "the same Task-Id and Task-Attempt again gets the kept outcome and runs nothing", _kept),
    Check("conflict", _D, "the same id and attempt with another payload is answered 409 id_conflict", _conflict),
    Check("task", _D, "GET /tasks/{id} tells id, attempt, state and result of a run", _task),
    Check(
        "unknown_task", _D, "GET and DELETE /tasks/{id} of a task that it does not know are answered 404", _unknown_task
    ),
    Check("attempts", _D, "a higher attempt runs anew; after it a lower one is answered 409 stale_attempt", _attempts),
    *LONG_RUNS,
)
