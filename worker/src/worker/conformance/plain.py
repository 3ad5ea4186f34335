"""Level plain: one task a call."""

from runnerlib.contract import HEADER_TASK_ATTEMPT, HEADER_TASK_DEADLINE, HEADER_TASK_ID, new_task_id, strict_json
from worker.conformance import expecting
from worker.conformance.bench import Bench
from worker.conformance.checks import Check
from worker.conformance.errors import Broken
from worker.conformance.levels import Level
from worker.conformance.subject import NOTHING

#: No message is larger than 16 MiB.
TOO_LARGE_BYTES = 17 * 1024 * 1024
_NOBODYS = "no_such_algorithm_of_yours"


async def _run(bench: Bench) -> None:
    expecting.result(await bench.run(bench.subject.payload))


async def _headers(bench: Bench) -> None:
    headers = {
        HEADER_TASK_ID: new_task_id(),
        HEADER_TASK_ATTEMPT: "1",
        HEADER_TASK_DEADLINE: "30.000",
        "Prefer": "wait=20",
    }
    body = strict_json.dumps(bench.subject.payload)
    answer = await bench.asker.post(f"/run/{bench.subject.algorithm}", body, headers, wait_seconds=20)
    # A full runner is none of this check's business.
    if answer.status not in (429, 503):
        expecting.result(answer)


async def _unknown_algorithm(bench: Bench) -> None:
    expecting.status(await bench.asker.post(f"/run/{_NOBODYS}", b"{}"), 404)


async def _invalid_payload(bench: Bench) -> str | None:
    if bench.subject.unfit is NOTHING:
        return "its schema takes every payload"
    answer = await bench.run(bench.subject.unfit)
    if answer.status == 200:
        sent = strict_json.dumps(bench.subject.unfit)[:200].decode()
        raise Broken(f"it took {sent}; if that fits, give one that does not with --unfit JSON")
    expecting.status(answer, 422, 400)
    return None


async def _malformed(bench: Bench) -> None:
    expecting.status(await bench.asker.post(f"/run/{bench.subject.algorithm}", b'{"'), 400)


async def _problems(bench: Bench) -> None:
    expecting.problem(await bench.asker.post(f"/run/{_NOBODYS}", b"{}"))
    expecting.problem(await bench.asker.post(f"/run/{bench.subject.algorithm}", b'{"'))
    if bench.subject.unfit is not NOTHING:
        expecting.problem(await bench.run(bench.subject.unfit))


async def _too_large(bench: Bench) -> None:
    # A payload that fits, and white space: only its size can be wrong with it.
    body = strict_json.dumps(bench.subject.payload).ljust(TOO_LARGE_BYTES)
    expecting.status(await bench.asker.post(f"/run/{bench.subject.algorithm}", body), 413)


_P = Level.PLAIN
PLAIN = (
    Check("run", _P, 'POST /run/{algorithm} with a payload that fits is answered 200 {"result": …}', _run),
    Check("task_headers", _P, "the headers Task-Id, Task-Attempt, Task-Deadline and Prefer change nothing", _headers),
    Check("unknown_algorithm", _P, "POST /run/ with a name that it does not offer is answered 404", _unknown_algorithm),
    Check("invalid_payload", _P, "a payload that does not fit is answered 422 (or 400)", _invalid_payload),
    Check("malformed", _P, "a body that is not JSON is answered 400", _malformed),
    Check("problems", _P, 'errors are application/problem+json with "code" and "detail", no traceback', _problems),
    Check("too_large", _P, "a body of 17 MiB is answered 413: read on, or the sender never sees it", _too_large),
)
