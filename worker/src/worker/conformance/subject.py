"""What a runner is probed with: one of its algorithms, and payloads for it."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from runnerlib.contract import AlgorithmDescription
from worker.conformance.asking import Asker
from worker.conformance.errors import BadRequest, Broken
from worker.conformance.schemas import fault_of, misfit_of

#: Stands for "none was given": None is a payload like any other.
NOTHING = object()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says."""

    algorithm: str | None = None
    payload: Any = NOTHING
    unfit: Any = NOTHING
    slow: Any = NOTHING


@dataclass(frozen=True, slots=True)
class Subject:
    """`unfit` does not fit the algorithm, `slow` takes it some seconds; either may be NOTHING."""

    algorithm: str
    payload: Any
    unfit: Any
    slow: Any
    slots: int = 1


async def find_subject(asker: Asker, wishes: Wishes) -> Subject:
    """What was asked for, completed by what the runner says of itself. Raises BadRequest, Unreachable."""
    described = await _described(asker)
    if wishes.algorithm is None and not described:
        raise BadRequest(
            "the runner does not say what it offers: GET /schemas gives no list of algorithms that can be read; "
            "name one with --algorithm, and a check will tell what is wrong with the list"
        )
    one = _chosen(described, wishes.algorithm)
    if one is None and described:
        raise BadRequest(
            f"the runner has no algorithm {wishes.algorithm!r} in GET /schemas; it has {', '.join(described)}"
        )
    name = one.name if one is not None else str(wishes.algorithm)
    payload = wishes.payload
    if payload is NOTHING:
        if one is None or one.example is None:
            raise BadRequest(f"{name} has no example in GET /schemas; give a payload that fits with --payload JSON")
        payload = one.example.payload
    unfit = _unfit(payload, one.input_schema if one else None) if wishes.unfit is NOTHING else wishes.unfit
    return Subject(name, payload, unfit, wishes.slow, one.limits.slots if one else 1)


def other_than(payload: Any) -> Any:
    """Another payload of the same kind."""
    if isinstance(payload, dict):
        for field, value in payload.items():
            if isinstance(value, str | int | float):
                return {**payload, field: other_than(value)}
        return {**payload, "another_field": True}
    if isinstance(payload, bool):
        return not payload
    if isinstance(payload, str):
        return payload + " more"
    return payload + 1 if isinstance(payload, int | float) else [payload]


async def _described(asker: Asker) -> dict[str, AlgorithmDescription]:
    """By name; empty when the runner says nothing that can be read: a check will tell what is wrong with it."""
    try:
        answer = await asker.get("/schemas")
        if answer.status != 200:
            return {}
        found = [AlgorithmDescription.model_validate(each) for each in answer.json()]
    except (Broken, ValidationError, TypeError):
        return {}
    return {each.name: each for each in found}


def _chosen(described: dict[str, AlgorithmDescription], name: str | None) -> AlgorithmDescription | None:
    if name is not None:
        return described.get(name)
    with_example = [each for each in described.values() if each.example is not None]
    return next(iter(with_example or described.values()), None)


def _unfit(payload: Any, schema: dict[str, Any] | None) -> Any:
    """A payload that the schema refuses; NOTHING when it takes all that come to mind."""
    more = [{**payload, "no_field_of_it": True}] if isinstance(payload, dict) else []
    candidates = [*more, [payload], None, "no payload of it", 0, {}]
    if schema is None or fault_of(schema):
        return candidates[len(more)]
    return next((each for each in candidates if misfit_of(each, schema)), NOTHING)
