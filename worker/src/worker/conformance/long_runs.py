"""Level durable, what shows with runs of some seconds only."""

import asyncio
import time

from runnerlib.contract import EntryState, new_task_id
from worker.conformance import expecting
from worker.conformance.asking import Answer
from worker.conformance.bench import Bench
from worker.conformance.checks import Check
from worker.conformance.errors import Broken
from worker.conformance.levels import Level

_CALLERS_PER_SLOT, _MORE_CALLERS, _MOST_CALLERS = 4, 4, 256


async def _later(bench: Bench) -> None:
    id, slow, pace = new_task_id(), bench.subject.slow, bench.pace
    try:
        answer = await bench.run(slow, id, 1, pace.short_wait_seconds)
        expecting.status(answer, 202)
        if answer.json().get("state") not in ("waiting", "running"):
            raise Broken(f"it answered {answer}")
        await bench.until(id, lambda entry: entry.state.is_final, "the run did not end", pace.slow_seconds)
        expecting.result(await bench.run(slow, id, 1, pace.slow_seconds))
    finally:
        await bench.cancelled(id)


async def _attach(bench: Bench) -> None:
    id, pace = new_task_id(), bench.pace
    async with bench.slow_run(id) as first:
        await asyncio.sleep(pace.later_seconds)
        second = asyncio.create_task(bench.run(bench.subject.slow, id, 1, pace.slow_seconds))
        ended_at = await asyncio.gather(_ended_at(first), _ended_at(second))
        if first.result().body != second.result().body:
            raise Broken(f"the one was answered {first.result()}, the other {second.result()}")
        expecting.result(first.result())
        # A second run would have begun when its caller came.
        apart = abs(ended_at[1] - ended_at[0])
        if apart > pace.later_seconds / 2:
            raise Broken(f"the second caller had its answer {apart:.1f} s after the first: it ran twice")


async def _ended_at(call: "asyncio.Task[Answer]") -> float:
    await call
    return time.monotonic()


async def _disconnect(bench: Bench) -> None:
    id = new_task_id()
    async with bench.slow_run(id) as call:
        call.cancel()
        await asyncio.wait([call])
        seconds = bench.pace.slow_seconds
        entry = await bench.until(id, lambda entry: entry.state.is_final, "the run did not end", seconds)
        expecting.state(entry, EntryState.SUCCEEDED)


async def _supersede(bench: Bench) -> None:
    id, pace = new_task_id(), bench.pace
    async with bench.slow_run(id) as first:
        expecting.status(await bench.run(bench.subject.slow, id, 2, pace.short_wait_seconds), 202)
        expecting.refusal(await _within(first, pace.answer_seconds), 409, "stale_attempt")
        if (entry := await bench.task(id)).attempt != 2:
            raise Broken(f"GET /tasks/{{id}} tells of attempt {entry.attempt}")


async def _cancel(bench: Bench) -> None:
    id, pace = new_task_id(), bench.pace
    async with bench.slow_run(id) as call:
        expecting.status(await bench.asker.delete(f"/tasks/{id}"), 202)
        expecting.refusal(await _within(call, pace.answer_seconds), 409, "cancelled")
        expecting.state(await bench.task(id), EntryState.CANCELLED)
        expecting.status(await bench.asker.delete(f"/tasks/{id}"), 409)


async def _within(call: "asyncio.Task[Answer]", seconds: float) -> Answer:
    await asyncio.wait([call], timeout=seconds)
    if not call.done():
        raise Broken(f"whoever waits for the run was not answered within {seconds:g} s")
    return call.result()


async def _full(bench: Bench) -> str:
    callers = min(_MOST_CALLERS, _CALLERS_PER_SLOT * bench.subject.slots + _MORE_CALLERS)
    ids = [new_task_id() for _ in range(callers)]
    try:
        answers = await asyncio.gather(*(bench.begin(bench.subject.slow, id) for id in ids))
        turned_away = [answer for answer in answers if answer.status == 429]
        for answer in answers:
            expecting.status(answer, 202, 429)
        for answer in turned_away:
            expecting.retry_after(answer)
        if not turned_away:
            raise Broken(f"it took {callers} at once, with {bench.subject.slots} slots")
        return f"of {callers} it took {callers - len(turned_away)}"
    finally:
        await bench.cancelled(*ids)


_D = Level.DURABLE
LONG_RUNS = (
    Check("later", _D, "Prefer: wait=0.3 is answered 202 in time, and the result is there later", _later, True),
    Check("attach", _D, "the same id and attempt while it runs waits for that run; both get its answer", _attach, True),
    Check("disconnect", _D, "a lost connection cancels nothing: the run goes on to its end", _disconnect, True),
    Check("supersede", _D, "a higher attempt stops a lower one, which is answered 409 stale_attempt", _supersede, True),
    Check("cancel", _D, "DELETE /tasks/{id} is answered 202, the run ends as cancelled; then it is 409", _cancel, True),
    Check("full", _D, "a runner takes a call in each slot and some that wait, and answers 429 beyond", _full, True),
)
