"""One :class:`Algorithm` from its inspected functions, docstring and options."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runnerlib.adapter.docs import Callee, Docs, read_docs
from runnerlib.adapter.json_types import HintError, arguments_adapter, writer
from runnerlib.adapter.model import MISSING, Algorithm, Options, Resource
from runnerlib.adapter.resources import in_loading_order
from runnerlib.adapter.schemas import input_schema
from runnerlib.adapter.signature import Signature
from runnerlib.adapter.twins import Twins, derive, pair
from runnerlib.contract import strict_json


def assemble(
    name: str,
    run: Signature | None,
    batch: Signature | None,
    resources: Mapping[str, Resource],
    options: Options,
    problems: list[str],
) -> Algorithm | None:
    """None when something is wrong, with a sentence in `problems`. One of `run` and `batch` is there."""
    before = len(problems)
    twins = _twins(run, batch, problems)
    docs = _docs(name, run, batch, twins, problems)
    returns, result_schema = _writer(run or batch, twins, problems)
    if len(problems) > before:
        return None
    parameters = tuple(replace(p, description=docs.fields.get(p.name, "")) for p in twins.parameters)
    arguments = arguments_adapter(name, {p.name: (p.annotation, p.required) for p in parameters})
    algorithm = Algorithm(
        name=name,
        handler=twins.handler,
        is_async=twins.is_async,
        parameters=parameters,
        provided=twins.provided,
        arguments=arguments,
        payload_schema=input_schema(arguments, parameters, name, docs.summary),
        batch_handler=batch.function if batch is not None else None,
        batch_provided=() if batch is None else batch.provided,
        batched_parameters=twins.batched,
        returns=returns,
        result_schema=result_schema,
        return_hint=twins.returns,
        options=options,
        summary=docs.summary,
        description=docs.description,
        example=docs.example,
        notes=docs.notes,
        resources=tuple(in_loading_order((*twins.provided, *(batch.provided if batch else ())), resources)),
    )
    problems.extend(_example_mistakes(algorithm))
    return algorithm


def _twins(run: Signature | None, batch: Signature | None, problems: list[str]) -> Twins:
    if run is not None and batch is not None:
        return pair(run, batch, problems)
    if batch is not None:
        return derive(batch, problems)
    assert run is not None
    return Twins(run.function, run.sent, run.provided, run.is_async, run.returns)


def _docs(name: str, run: Signature | None, batch: Signature | None, twins: Twins, problems: list[str]) -> Docs:
    parameters = [p.name for p in twins.parameters]
    single = f"run_{name}"
    if batch is None:
        assert run is not None
        return read_docs(run.function.__doc__, Callee(single, parameters, twins.provided), problems)
    callee = Callee(batch.name, parameters, (*twins.provided, *batch.provided), twins.batched, single)
    if run is None:
        return read_docs(batch.function.__doc__, callee, problems)
    docs = read_docs(run.function.__doc__, Callee(single, parameters, twins.provided), problems)
    unread: list[str] = []
    beside = read_docs(batch.function.__doc__, callee, unread)
    notes = (*docs.notes, *beside.notes, *unread)
    if docs.example is None:
        return replace(docs, example=beside.example, notes=notes)
    if beside.example is not None:
        notes += (f"{batch.name}(): its example is not run, since {single} has one",)
    return replace(docs, notes=notes)


def _writer(
    signature: Signature | None, twins: Twins, problems: list[str]
) -> tuple[TypeAdapter[Any] | None, dict[str, Any] | None]:
    assert signature is not None
    if twins.returns is MISSING:
        return None, None
    try:
        return writer(twins.returns)
    except HintError as error:
        problems.append(f"{signature.name}(): the return value {error}")
        return None, None


def _example_mistakes(algorithm: Algorithm) -> list[str]:
    if algorithm.example is None:
        return []
    try:
        algorithm.validate(strict_json.dumps(algorithm.example.payload))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return [
            f"{algorithm.function_name}(): its docstring's example does not fit its hints: "
            f"{where + ': ' if where else ''}{first['msg']}; correct the example or the hint"
        ]
    return []
