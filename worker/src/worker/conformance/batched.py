"""Level batched: many tasks in one call."""

from runnerlib.contract import EntryState, FailureCode, new_task_id, strict_json
from worker.conformance import expecting
from worker.conformance.bench import Bench, item
from worker.conformance.checks import Check
from worker.conformance.errors import Broken
from worker.conformance.levels import Level
from worker.conformance.subject import NOTHING, other_than

_OPEN = (EntryState.WAITING, EntryState.RUNNING)


async def _batch(bench: Bench) -> None:
    for entry in await bench.ended([item(bench.subject.payload) for _ in range(3)]):
        expecting.state(entry, EntryState.SUCCEEDED)
        if "result" not in entry.model_fields_set:
            raise Broken("an entry has no result")


async def _neighbours(bench: Bench) -> str | None:
    subject = bench.subject
    if subject.unfit is NOTHING:
        return "its schema takes every payload"
    first, unfit, last = await bench.ended([item(subject.payload), item(subject.unfit), item(subject.payload)])
    expecting.state(unfit, EntryState.FAILED)
    if unfit.error is None or unfit.error.code != FailureCode.INVALID_PAYLOAD.value:
        raise Broken(f"the code of that entry is {unfit.error.code if unfit.error else None!r}")
    for entry in (first, last):
        expecting.state(entry, EntryState.SUCCEEDED)
    return None


async def _ask(bench: Bench) -> None:
    id = new_task_id()
    result = expecting.result(await bench.run(bench.subject.payload, id))
    [entry] = await bench.batch([{"id": id, "attempt": 1}])
    expecting.state(entry, EntryState.SUCCEEDED)
    if entry.result != result:
        raise Broken("the entry has another result than POST /run had")


async def _unknown(bench: Bench) -> None:
    id = new_task_id()
    for _ in range(2):
        [entry] = await bench.batch([{"id": id, "attempt": 1}])
        expecting.state(entry, EntryState.UNKNOWN)


async def _again(bench: Bench) -> None:
    items = [item(bench.subject.payload)]
    [first] = await bench.ended(items)
    [second] = await bench.ended(items)
    expecting.state(second, EntryState.SUCCEEDED)
    if second.seconds != first.seconds:
        raise Broken(f"it ran again: the run took {first.seconds} s, then {second.seconds} s")
    [other] = await bench.ended([item(other_than(bench.subject.payload), items[0]["id"])])
    codes = (FailureCode.ID_CONFLICT.value, FailureCode.INVALID_PAYLOAD.value)
    if expecting.state(other, EntryState.FAILED).error is None or other.error.code not in codes:  # type: ignore[union-attr]
        raise Broken("with another payload its code is not id_conflict")


async def _stale(bench: Bench) -> None:
    later = item(bench.subject.payload, attempt=2)
    await bench.ended([later])
    [entry] = await bench.ended([{**later, "attempt": 1}])
    expecting.state(entry, EntryState.STALE_ATTEMPT)


async def _refused(bench: Bench) -> None:
    path = f"/batch/{bench.subject.algorithm}"
    for body in (b"[", b"{}", strict_json.dumps([{"id": new_task_id()}])):
        expecting.problem(expecting.status(await bench.asker.post(path, body), 400, 422))
    nobodys = await bench.asker.post("/batch/no_such_algorithm_of_yours", b"[]")
    expecting.problem(expecting.status(nobodys, 404))


async def _wait(bench: Bench) -> None:
    slow = item(bench.subject.slow)
    bare = {"id": slow["id"], "attempt": 1}
    try:
        [entry] = await bench.batch([slow], bench.pace.short_wait_seconds)
        expecting.state(entry, *_OPEN)
        [entry] = await bench.ended([bare])
        expecting.state(entry, EntryState.SUCCEEDED)
    finally:
        await bench.cancelled(slow["id"])


_B = Level.BATCHED
BATCHED = (
    Check("batch", _B, "POST /batch/{algorithm} answers one entry for each item, in their order", _batch),
    Check("neighbours", _B, "a payload that does not fit is failed invalid_payload, its neighbours run", _neighbours),
    Check("ask", _B, "an item without a payload is answered what is known of the run, however it came", _ask),
    Check("unknown", _B, "an item without a payload starts nothing: a run that is not there is unknown", _unknown),
    Check("again", _B, "the same item again gets the kept outcome, with another payload id_conflict", _again),
    Check("stale", _B, "a lower attempt than the last is stale_attempt", _stale),
    Check("refused", _B, "a body that is no batch is answered 400, an unknown algorithm 404", _refused),
    Check(
        "wait", _B, "Prefer: wait=0.3 is answered in time with waiting or running, and later the outcome", _wait, True
    ),
)
