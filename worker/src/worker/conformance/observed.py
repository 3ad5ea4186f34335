"""Level observed: it can be looked at."""

import asyncio
from typing import Any

from pydantic import ValidationError

from runnerlib.contract import HEADER_BOOT, AlgorithmDescription, strict_json, unregistrable
from worker.conformance import expecting
from worker.conformance.bench import Bench
from worker.conformance.checks import Check
from worker.conformance.errors import Broken
from worker.conformance.levels import Level
from worker.conformance.schemas import fault_of, misfit_of

_MAX_BOOT = 64
#: Callers at once: more than the slots, but not more than any server takes.
_CALLERS_PER_SLOT, _MORE_CALLERS, _MOST_CALLERS = 4, 16, 256


async def _live(bench: Bench) -> None:
    expecting.status(await bench.asker.get("/healthz/live"), 200)


async def _ready(bench: Bench) -> None:
    expecting.status(await bench.asker.get("/healthz/ready"), 200)


async def _schemas(bench: Bench) -> None:
    described = expecting.status(await bench.asker.get("/schemas"), 200).json()
    try:
        found = [AlgorithmDescription.model_validate(each) for each in described]
    except (ValidationError, TypeError) as error:
        raise Broken(f"its list cannot be read: {str(error).splitlines()[0]}") from None
    for name, reason in unregistrable(found).items():
        raise Broken(f"{name} cannot be registered: {reason}")
    one = next((each for each in found if each.name == bench.subject.algorithm), None)
    if one is None or one.input_schema is None:
        raise Broken(f"it has no input_schema of {bench.subject.algorithm}")
    _fits("a payload that it takes", bench.subject.payload, one.input_schema)
    if one.output_schema is not None:
        _fits("its result", expecting.result(await bench.run(bench.subject.payload)), one.output_schema)


def _fits(what: str, value: Any, schema: dict[str, Any]) -> None:
    if fault := fault_of(schema):
        raise Broken(f"a schema is no JSON Schema: {fault}")
    if misfit := misfit_of(value, schema):
        raise Broken(f"{what} does not fit the schema: {misfit}")


async def _boot(bench: Bench) -> None:
    answers = [
        await bench.run(bench.subject.payload),
        await bench.asker.post("/run/no_such_algorithm_of_yours", b"{}"),
        await bench.asker.get("/healthz/live"),
    ]
    told = {answer.headers.get(HEADER_BOOT) for answer in answers}
    if len(told) != 1:
        raise Broken(f"three answers had {', '.join(sorted(repr(each) for each in told))}")
    [boot] = told
    if not boot or len(boot) > _MAX_BOOT:
        raise Broken(f"it is {boot!r}")


async def _full(bench: Bench) -> str:
    callers = min(_MOST_CALLERS, _CALLERS_PER_SLOT * bench.subject.slots + _MORE_CALLERS)
    path, body = f"/run/{bench.subject.algorithm}", strict_json.dumps(bench.subject.payload)
    answers = await asyncio.gather(*(bench.asker.post(path, body) for _ in range(callers)))
    turned_away = [answer for answer in answers if answer.status != 200]
    for answer in turned_away:
        expecting.status(answer, 429, 503)
        expecting.retry_after(answer)
    return f"{callers} at once: {callers - len(turned_away)} were run, {len(turned_away)} turned away"


_O = Level.OBSERVED
OBSERVED = (
    Check("live", _O, "GET /healthz/live is answered 200", _live),
    Check("ready", _O, "GET /healthz/ready is answered 200 when it can work (503 while it loads or stops)", _ready),
    Check("schemas", _O, "GET /schemas lists each algorithm with JSON Schemas that its payloads fit", _schemas),
    Check("boot", _O, "every answer has a header Runner-Boot: one id for the life of the process", _boot),
    Check("busy", _O, "of many callers at once each is answered: 200, or 429 (503) with Retry-After", _full),
)
