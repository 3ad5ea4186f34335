"""One :class:`Algorithm` from its inspected functions, docstring and options."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runnerlib.adapter.docs import Callee, Docs, read_docs
from runnerlib.adapter.errors import as_problem
from runnerlib.adapter.json_types import HintError, arguments_adapter, sent_name, writer
from runnerlib.adapter.model import MISSING, Algorithm, DocExample, Options, Parameter, Resource
from runnerlib.adapter.resources import in_loading_order
from runnerlib.adapter.schemas import input_schema, without_lost_defaults
from runnerlib.adapter.signature import Signature
from runnerlib.adapter.twins import Twins, derive, pair
from runnerlib.contract import StrictJsonError, strict_json


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
    written = run or batch
    assert written is not None
    twins = _twins(run, batch, problems)
    docs = _docs(name, run, batch, twins, problems)
    returns, result_schema = _writer(written, twins, problems)
    parameters = _named(written.name, twins, docs, problems)
    if len(problems) > before:
        return None
    arguments = arguments_adapter(name, {p.name: (p.annotation, p.required) for p in parameters})
    payload_schema = without_lost_defaults(input_schema(arguments, parameters, name, docs.summary))
    _check_schemas(written.name, {"parameters": payload_schema, "return value": result_schema}, problems)
    algorithm = Algorithm(
        name=name,
        handler=twins.handler,
        is_async=twins.is_async,
        parameters=parameters,
        provided=twins.provided,
        arguments=arguments,
        payload_schema=payload_schema,
        batch_handler=batch.function if batch is not None else None,
        batch_provided=() if batch is None else batch.provided,
        batched_parameters=twins.batched,
        returns=returns,
        result_schema=result_schema,
        return_hint=twins.returns,
        options=options,
        summary=docs.summary,
        description=docs.description,
        example=_as_sent(docs.example, parameters),
        notes=docs.notes,
        resources=tuple(in_loading_order((*twins.provided, *(batch.provided if batch else ())), resources)),
    )
    with as_problem(problems, f"{algorithm.function_name}(): its docstring's example, read as a payload,"):
        problems.extend(_example_mistakes(algorithm))
    return algorithm if len(problems) == before else None


def _twins(run: Signature | None, batch: Signature | None, problems: list[str]) -> Twins:
    if run is not None and batch is not None:
        return pair(run, batch, problems)
    if batch is not None:
        return derive(batch, problems)
    assert run is not None
    return Twins(run.function, run.sent, run.provided, run.is_async, run.returns)


def _named(function: str, twins: Twins, docs: Docs, problems: list[str]) -> tuple[Parameter, ...]:
    """The parameters with what callers name them, and what the docstring says of them."""
    owners: dict[str, str] = {}
    named = []
    for parameter in twins.parameters:
        try:
            field = sent_name(parameter.name, parameter.annotation)
        except HintError as error:
            problems.append(f"{function}(): parameter '{parameter.name}' {error}")
            continue
        if field in owners:
            problems.append(
                f"{function}(): callers would send both '{owners[field]}' and '{parameter.name}' as '{field}'; "
                "give one of them another alias"
            )
        owners[field] = parameter.name
        named.append(replace(parameter, field=field, description=docs.fields.get(parameter.name, "")))
    return tuple(named)


def _check_schemas(function: str, schemas: Mapping[str, Any], problems: list[str]) -> None:
    for of_what, schema in schemas.items():
        try:
            strict_json.dumps(schema)
        except (TypeError, ValueError, RecursionError) as error:
            problems.append(
                f"{function}(): the JSON Schema of its {of_what} cannot be written as JSON ({error}); "
                "look at json_schema_extra, examples and enumerations"
            )


def _as_sent(example: DocExample | None, parameters: Iterable[Parameter]) -> DocExample | None:
    """The example of a call as the example of a payload, which has fields for parameters."""
    if example is None:
        return None
    fields = {p.name: p.field for p in parameters}
    return replace(example, payload={fields.get(name, name): value for name, value in example.payload.items()})


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
    signature: Signature, twins: Twins, problems: list[str]
) -> tuple[TypeAdapter[Any] | None, dict[str, Any] | None]:
    if twins.returns is MISSING:
        return None, None
    try:
        adapter, schema = writer(twins.returns)
    except HintError as error:
        problems.append(f"{signature.name}(): the return value {error}")
        return None, None
    return adapter, without_lost_defaults(schema)


def _example_mistakes(algorithm: Algorithm) -> list[str]:
    if algorithm.example is None:
        return []
    try:
        algorithm.validate(strict_json.dumps(algorithm.example.payload))
    except StrictJsonError as error:
        return [f"{algorithm.function_name}(): its docstring's example cannot be sent as JSON: {error}; correct it"]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return [
            f"{algorithm.function_name}(): its docstring's example does not fit its hints: "
            f"{where + ': ' if where else ''}{first['msg']}; correct the example or the hint"
        ]
    return []
