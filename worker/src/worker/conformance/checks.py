"""The checks of the contract, by level. A check's docstring is what the contract wants.

A check raises CheckFailed, or returns a remark or nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from runnerlib.contract import (
    HEADER_BOOT,
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_DEADLINE,
    HEADER_TASK_ID,
    EntryState,
    FailureCode,
    new_task_id,
    strict_json,
    unregistrable,
)
from worker.conformance.client import NOT_GIVEN, Answer, CheckFailed, Client, expect_state, item, require
from worker.conformance.target import mismatch, other_than, schema_error

#: The limit for messages is 16 MiB.
_TOO_LARGE_BYTES = 17 * 1024 * 1024
_MAX_BOOT_CHARACTERS = 64
#: At once: more calls than the runner has room for, but not more than any server accepts.
_CALLS_PER_SLOT, _MOST_CALLS = 4, 256
_UNKNOWN_RUN = "/run/no_such_algorithm_of_yours"
_EVERY_PAYLOAD_FITS = "its schema takes every payload"


# Level plain: one task a call.


async def run(client: Client) -> None:
    """POST /run/{algorithm} with a payload that fits is answered 200 {"result": …}"""
    (await client.run(client.target.payload)).result()


async def task_headers(client: Client) -> None:
    """the headers Task-Id, Task-Attempt, Task-Deadline and Prefer change nothing"""
    ids = {HEADER_TASK_ID: new_task_id(), HEADER_TASK_ATTEMPT: "1"}
    headers = {**ids, HEADER_TASK_DEADLINE: "30.000", "Prefer": "wait=20"}
    answer = await client.post(client.target.run_path, strict_json.dumps(client.target.payload), headers, 20)
    # Whether the runner is full does not matter here.
    if answer.status not in (429, 503):
        answer.result()


async def unknown_algorithm(client: Client) -> None:
    """POST /run/ with a name that it does not offer is answered 404"""
    (await client.post(_UNKNOWN_RUN, b"{}")).expect(404)


async def invalid_payload(client: Client) -> str | None:
    """a payload that does not fit is answered 422 (or 400)"""
    if client.target.unfit is NOT_GIVEN:
        return _EVERY_PAYLOAD_FITS
    answer = await client.run(client.target.unfit)
    sent = strict_json.dumps(client.target.unfit)[:200].decode()
    require(answer.status != 200, f"it took {sent}; if that fits, give one that does not with --unfit JSON")
    answer.expect(422, 400)
    return None


async def malformed(client: Client) -> None:
    """a body that is not JSON is answered 400"""
    (await client.post(client.target.run_path, b'{"')).expect(400)


async def problems(client: Client) -> None:
    """errors are application/problem+json with "code" and "detail", no traceback"""
    (await client.post(_UNKNOWN_RUN, b"{}")).problem()
    (await client.post(client.target.run_path, b'{"')).problem()
    if client.target.unfit is not NOT_GIVEN:
        (await client.run(client.target.unfit)).problem()


async def too_large(client: Client) -> None:
    """a body of 17 MiB is answered 413: read on, or the sender never sees it"""
    # A payload that fits, and white space: nothing but its size is wrong.
    body = strict_json.dumps(client.target.payload).ljust(_TOO_LARGE_BYTES)
    (await client.post(client.target.run_path, body)).expect(413)


async def token(client: Client) -> None:
    """POST /run/{algorithm} without the token for runs, or with another, is answered 401"""
    await client.refuse_strangers("POST", client.target.run_path, strict_json.dumps(client.target.payload))


# Level observed: it says how it is.


async def live(client: Client) -> None:
    """GET /healthz/live is answered 200"""
    (await client.get("/healthz/live")).expect(200)


async def ready(client: Client) -> None:
    """GET /healthz/ready is answered 200 when it can work (503 while it loads or stops)"""
    (await client.get("/healthz/ready")).expect(200)


async def schemas(client: Client) -> None:
    """GET /schemas lists each algorithm with JSON Schemas that its payloads fit"""
    found = await client.described()
    for name, reason in unregistrable(found).items():
        raise CheckFailed(f"{name} cannot be registered: {reason}")
    target = client.target
    one = next((each for each in found if each.name == target.algorithm), None)
    if one is None or one.input_schema is None:
        raise CheckFailed(f"it has no input_schema of {target.algorithm}")
    _require_fit("a payload that it takes", target.payload, one.input_schema)
    if one.output_schema is not None:
        _require_fit("its result", (await client.run(target.payload)).result(), one.output_schema)


def _require_fit(what: str, value: Any, schema: dict[str, Any]) -> None:
    if wrong := schema_error(schema):
        raise CheckFailed(f"a schema is no JSON Schema: {wrong}")
    if wrong := mismatch(value, schema):
        raise CheckFailed(f"{what} does not fit the schema: {wrong}")


async def boot(client: Client) -> None:
    """every answer has a header Runner-Boot: one id for the life of the process"""
    answers = [
        await client.run(client.target.payload),
        await client.post(_UNKNOWN_RUN, b"{}"),
        await client.get("/healthz/live"),
    ]
    found = {answer.headers.get(HEADER_BOOT) for answer in answers}
    require(len(found) == 1, f"three answers had {', '.join(sorted(repr(each) for each in found))}")
    [id] = found
    require(id and len(id) <= _MAX_BOOT_CHARACTERS, f"it is {id!r}")


async def busy(client: Client) -> str:
    """of many callers at once each is answered: 200, or 429 (503) with Retry-After"""
    callers = min(_MOST_CALLS, _CALLS_PER_SLOT * client.target.slots + 16)
    answers = await asyncio.gather(*(client.run(client.target.payload, insists=False) for _ in range(callers)))
    turned_away = [answer for answer in answers if answer.status != 200]
    for answer in turned_away:
        answer.turned_away(429, 503)
    return f"{callers} at once: {callers - len(turned_away)} were run, {len(turned_away)} turned away"


async def open_to_all(client: Client) -> None:
    """GET /healthz/live, /healthz/ready, /schemas and /docs need no token"""
    for path in ("/healthz/live", "/healthz/ready", "/schemas", "/docs"):
        answer = await client.without_token("GET", path)
        # A runner may have no page for people.
        require(answer.status not in (401, 403), f"GET {path} without a token was answered {answer}")


# Level durable: a run belongs to one attempt at a task.


async def kept(client: Client) -> None:
    """the same Task-Id and Task-Attempt again gets the kept outcome and runs nothing"""
    id, first = await client.finished_run()
    before = await client.task(id)
    second = (await client.run(client.target.payload, id)).result()
    after = await client.task(id)
    require(second == first, "the second answer has another result")
    _require_one_run(before.seconds, after.seconds)


def _require_one_run(before: float | None, after: float | None) -> None:
    """The time that a kept run took does not change."""
    require(after == before, f"it ran again: the run took {before} s, then {after} s")


async def conflict(client: Client) -> None:
    """the same id and attempt with another payload is answered 409 id_conflict"""
    id, _ = await client.finished_run()
    answer = await client.run(other_than(client.target.payload), id)
    if answer.status not in (400, 422):
        answer.refusal(409, "id_conflict")


async def task(client: Client) -> None:
    """GET /tasks/{id} tells id, attempt, state and result of a run"""
    id, result = await client.finished_run()
    entry = expect_state(await client.task(id), EntryState.SUCCEEDED)
    same = (entry.id, entry.attempt, entry.result) == (id, 1, result)
    require(same, "the entry has another id, attempt or result than the run")


async def unknown_task(client: Client) -> None:
    """GET and DELETE /tasks/{id} of a task that it does not know are answered 404"""
    path = f"/tasks/{new_task_id()}"
    (await client.get(path)).expect(404)
    (await client.delete(path)).expect(404)


async def attempts(client: Client) -> None:
    """a higher attempt runs anew; after it a lower one is answered 409 stale_attempt"""
    id = new_task_id()
    for attempt in (1, 2):
        (await client.run(client.target.payload, id, attempt)).result()
    entry = await client.task(id)
    require(entry.attempt == 2, f"after attempt 2 GET /tasks/{{id}} tells of attempt {entry.attempt}")
    (await client.run(client.target.payload, id, 1)).refusal(409, "stale_attempt")


async def token_tasks(client: Client) -> None:
    """GET and DELETE /tasks/{id} without the token for runs, or with another, are answered 401"""
    id, _ = await client.finished_run()
    for method in ("GET", "DELETE"):
        await client.refuse_strangers(method, f"/tasks/{id}")


# Level durable, with runs that take seconds.


async def later(client: Client) -> None:
    """Prefer: wait=0.3 is answered 202 in time, and the result is there later"""
    id, slow, timing = client.slow_id(), client.target.slow, client.timing
    answer = (await client.run(slow, id, 1, timing.short_wait)).expect(202)
    require(answer.json().get("state") in ("waiting", "running"), f"it answered {answer}")
    await client.task_ended(id, timing.slow)
    (await client.run(slow, id, 1, timing.slow)).result()


async def attach(client: Client) -> None:
    """the same id and attempt while it runs waits for that run; both get its answer"""
    id, first = await client.begin_slow()
    timing = client.timing
    await asyncio.sleep(timing.second_caller)
    second = asyncio.create_task(client.run(client.target.slow, id, 1, timing.slow))
    first_at, second_at = await asyncio.gather(_time_of_answer(first), _time_of_answer(second))
    one, other = first.result(), second.result()
    require(one.body == other.body, f"the one was answered {one}, the other {other}")
    one.result()
    # A second run would have started when its caller came.
    apart = abs(second_at - first_at)
    late = f"the second caller had its answer {apart:.1f} s after the first: it ran twice"
    require(apart <= timing.second_caller / 2, late)


async def _time_of_answer(call: "asyncio.Task[Answer]") -> float:
    await call
    return time.monotonic()


async def disconnect(client: Client) -> None:
    """a lost connection cancels nothing: the run goes on to its end"""
    id, call = await client.begin_slow()
    call.cancel()
    await asyncio.wait([call])
    expect_state(await client.task_ended(id, client.timing.slow), EntryState.SUCCEEDED)


async def supersede(client: Client) -> None:
    """a higher attempt stops a lower one, which is answered 409 stale_attempt"""
    id, first = await client.begin_slow()
    (await client.run(client.target.slow, id, 2, client.timing.short_wait)).expect(202)
    (await _answer_within(first, client.timing.answer)).refusal(409, "stale_attempt")
    entry = await client.task(id)
    require(entry.attempt == 2, f"GET /tasks/{{id}} tells of attempt {entry.attempt}")


async def cancel(client: Client) -> None:
    """DELETE /tasks/{id} is answered 202, the run ends as cancelled; then it is 409"""
    id, call = await client.begin_slow()
    (await client.delete(f"/tasks/{id}")).expect(202)
    (await _answer_within(call, client.timing.answer)).refusal(409, "cancelled")
    expect_state(await client.task(id), EntryState.CANCELLED)
    (await client.delete(f"/tasks/{id}")).expect(409)


async def _answer_within(call: "asyncio.Task[Answer]", seconds: float) -> Answer:
    await asyncio.wait([call], timeout=seconds)
    require(call.done(), f"whoever waits for the run was not answered within {seconds:g} s")
    return call.result()


async def full(client: Client) -> str:
    """a runner takes a call in each slot and some that wait, and answers 429 beyond"""
    callers = min(_MOST_CALLS, _CALLS_PER_SLOT * client.target.slots + 4)
    slow, ids = client.target.slow, [client.slow_id() for _ in range(callers)]
    answers = await asyncio.gather(*(client.run(slow, id, wait_seconds=0, insists=False) for id in ids))
    turned_away = [answer for answer in answers if answer.expect(202, 429).status == 429]
    for answer in turned_away:
        answer.turned_away(429)
    require(turned_away, f"it took {callers} at once, with {client.target.slots} slots")
    return f"of {callers} it took {callers - len(turned_away)}"


# Level batched: many tasks in one call.


async def batch(client: Client) -> None:
    """POST /batch/{algorithm} answers one entry for each item, in their order"""
    for entry in await client.batch_to_end([item(client.target.payload) for _ in range(3)]):
        expect_state(entry, EntryState.SUCCEEDED)
        require("result" in entry.model_fields_set, "an entry has no result")


async def neighbours(client: Client) -> str | None:
    """a payload that does not fit is failed invalid_payload, its neighbours run"""
    target = client.target
    if target.unfit is NOT_GIVEN:
        return _EVERY_PAYLOAD_FITS
    payloads = (target.payload, target.unfit, target.payload)
    first, unfit, last = await client.batch_to_end([item(payload) for payload in payloads])
    expect_state(unfit, EntryState.FAILED)
    code = unfit.error.code if unfit.error else None
    require(code == FailureCode.INVALID_PAYLOAD.value, f"the code of that entry is {code!r}")
    for entry in (first, last):
        expect_state(entry, EntryState.SUCCEEDED)
    return None


async def ask(client: Client) -> None:
    """an item without a payload is answered what is known of the run, however it came"""
    id, result = await client.finished_run()
    [entry] = await client.batch([{"id": id, "attempt": 1}])
    expect_state(entry, EntryState.SUCCEEDED)
    require(entry.result == result, "the entry has another result than POST /run had")


async def unknown(client: Client) -> None:
    """an item without a payload starts nothing: a run that is not there is unknown"""
    id = new_task_id()
    for _ in range(2):
        [entry] = await client.batch([{"id": id, "attempt": 1}])
        expect_state(entry, EntryState.UNKNOWN)


async def again(client: Client) -> None:
    """the same item again gets the kept outcome, with another payload id_conflict"""
    items = [item(client.target.payload)]
    [first] = await client.batch_to_end(items)
    [second] = await client.batch_to_end(items)
    expect_state(second, EntryState.SUCCEEDED)
    _require_one_run(first.seconds, second.seconds)
    [other] = await client.batch_to_end([item(other_than(client.target.payload), items[0]["id"])])
    codes = (FailureCode.ID_CONFLICT.value, FailureCode.INVALID_PAYLOAD.value)
    expect_state(other, EntryState.FAILED)
    require(other.error and other.error.code in codes, "with another payload its code is not id_conflict")


async def stale(client: Client) -> None:
    """a lower attempt than the last is stale_attempt"""
    second = item(client.target.payload, attempt=2)
    await client.batch_to_end([second])
    [entry] = await client.batch_to_end([{**second, "attempt": 1}])
    expect_state(entry, EntryState.STALE_ATTEMPT)


async def refused(client: Client) -> None:
    """a body that is no batch is answered 400, an unknown algorithm 404"""
    path = f"/batch/{client.target.algorithm}"
    for body in (b"[", b"{}", strict_json.dumps([{"id": new_task_id()}])):
        (await client.post(path, body)).expect(400, 422).problem()
    (await client.post("/batch/no_such_algorithm_of_yours", b"[]")).expect(404).problem()


async def wait(client: Client) -> None:
    """Prefer: wait=0.3 is answered in time with waiting or running, and later the outcome"""
    slow = item(client.target.slow, client.slow_id())
    [entry] = await client.batch([slow], client.timing.short_wait)
    expect_state(entry, EntryState.WAITING, EntryState.RUNNING)
    [entry] = await client.batch_to_end([{"id": slow["id"], "attempt": 1}])
    expect_state(entry, EntryState.SUCCEEDED)


async def token_batch(client: Client) -> None:
    """POST /batch/{algorithm} without the token for runs, or with another, is answered 401"""
    body = strict_json.dumps([item(client.target.payload)])
    await client.refuse_strangers("POST", f"/batch/{client.target.algorithm}", body)


class Level(IntEnum):
    """What a runner can be relied on for. Each level includes those below it."""

    NONE = 0, "nothing that a controller could use"
    PLAIN = 1, "runs one task a call, and says what is wrong with it"
    OBSERVED = 2, "says what it offers, whether it can work, and when it is full"
    DURABLE = 3, "a run belongs to a task's attempt: attached to, superseded, cancelled, never lost with its caller"
    BATCHED = 4, "takes many tasks in one call"

    means: str

    def __new__(cls, value: int, means: str) -> "Level":
        level = int.__new__(cls, value)
        level._value_, level.means = value, means
        return level

    @property
    def word(self) -> str:
        return self.name.lower()


#: All that can be reached.
LEVELS = tuple(Level)[1:]


@dataclass(frozen=True, slots=True)
class Check:
    """`needs_slow`: cannot be tried without a payload that takes seconds. `needs_token`: of a runner that has one."""

    level: Level
    function: Callable[[Client], Awaitable[str | None]]
    needs_slow: bool = False
    needs_token: bool = False

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def wants(self) -> str:
        """What the contract wants, as a sentence."""
        return str(self.function.__doc__)


_BY_LEVEL = {
    Level.PLAIN: (run, task_headers, unknown_algorithm, invalid_payload, malformed, problems, too_large, token),
    Level.OBSERVED: (live, ready, schemas, boot, busy, open_to_all),
    Level.DURABLE: (
        *(kept, conflict, task, unknown_task, attempts, token_tasks),
        *(later, attach, disconnect, supersede, cancel, full),
    ),
    Level.BATCHED: (batch, neighbours, ask, unknown, again, stale, refused, token_batch, wait),
}
_SLOW = (later, attach, disconnect, supersede, cancel, full, wait)
_WITH_TOKEN = (token, open_to_all, token_tasks, token_batch)
CHECKS = [
    Check(level, function, function in _SLOW, function in _WITH_TOKEN)
    for level, each in _BY_LEVEL.items()
    for function in each
]
