"""Reads the parameters and hints of ``run_*``, ``batch_*`` and ``load_*``, and says what is wrong with them."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ValidationError

from runnerlib.adapter.errors import as_problem, did_you_mean, listed, shown
from runnerlib.adapter.json_types import HintError, adapter_and_schema, resolve, spelt
from runnerlib.adapter.model import MISSING, Parameter
from runnerlib.contract import near_names

#: What the runner itself provides; every ``load_<thing>`` adds its thing.
BUILT_IN_NAMES = ("task", "device", "logger", "metrics", "fetch")

_P = inspect.Parameter


@dataclass(frozen=True)
class Signature:
    """An inspected ``run_*`` or ``batch_*``, or both merged into one."""

    function: Callable[..., Any]
    name: str
    is_async: bool
    #: Left of ``*``.
    sent: tuple[Parameter, ...]
    #: Right of ``*``.
    provided: tuple[str, ...]
    #: The return hint, or MISSING.
    returns: Any
    batch_function: Callable[..., Any] | None = None
    batch_provided: tuple[str, ...] = ()
    #: Names of parameters that the batch handler takes as lists.
    batched: tuple[str, ...] = ()


def inspect_handler(
    name: str, function: Callable[..., Any], loadable: Iterable[str], imported: Iterable[str], problems: list[str]
) -> Signature:
    """Reads a ``run_*`` or ``batch_*``; adds a sentence to `problems` for each mistake.

    `loadable` are the names that the adapter's ``load_*`` provide, `imported` those of ``load_*`` it only imports.
    """
    known = (*BUILT_IN_NAMES, *loadable)
    unwrapped = inspect.unwrap(function)
    if inspect.isgeneratorfunction(unwrapped) or inspect.isasyncgenfunction(unwrapped):
        problems.append(f"{name}(): it yields, but a task has one result; return a list instead")
    sent: list[Parameter] = []
    provided: list[str] = []
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind is _P.KEYWORD_ONLY:
            provided.append(parameter.name)
            if parameter.name not in known:
                problems.append(_not_provided(name, parameter.name, known, imported))
        elif mistake := _wrong_kind(name, parameter):
            problems.append(mistake)
        else:
            sent.extend(_sent(name, function, parameter, known, problems))
    returns = MISSING
    try:
        if signature.return_annotation is not signature.empty:
            returns = resolve(signature.return_annotation, function)
    except HintError as error:
        problems.append(f"{name}(): the return value {error}")
    # A plain wrapper around an async def counts, too: it returns its coroutine.
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(unwrapped)
    return Signature(function, name, is_async, tuple(sent), tuple(provided), returns)


def inspect_load(
    name: str, function: Callable[..., Any], loadable: Iterable[str], imported: Iterable[str], problems: list[str]
) -> tuple[str, ...]:
    """The provided names that a ``load_*`` asks for. A parameter with a default may be its own."""
    known = tuple(one for one in (*BUILT_IN_NAMES, *loadable) if one != "task")
    unwrapped = inspect.unwrap(function)
    if inspect.iscoroutinefunction(unwrapped) or inspect.isasyncgenfunction(unwrapped):
        problems.append(f"{name}(): it is an async def, but things are loaded before any loop runs; write a plain def")
    asked = []
    for parameter in inspect.signature(function).parameters.values():
        if mistake := _wrong_kind(name, parameter):
            problems.append(mistake)
        elif parameter.name == "task":
            problems.append(f"{name}(): there is no 'task' while things are loaded; ask for it in the run_* instead")
        elif parameter.name in known:
            asked.append(parameter.name)
        elif parameter.default is _P.empty or near_names(parameter.name, known):
            problems.append(_not_provided(name, parameter.name, known, imported))
    return tuple(asked)


def _wrong_kind(function: str, parameter: inspect.Parameter) -> str | None:
    if parameter.kind is _P.VAR_POSITIONAL:
        return f"{function}(): *{parameter.name} has no fields to validate; name each parameter, or write a list[...]"
    if parameter.kind is _P.VAR_KEYWORD:
        return f"{function}(): **{parameter.name} has no fields to validate; name each parameter, or write a dict[...]"
    if parameter.kind is _P.POSITIONAL_ONLY:
        return f"{function}(): parameter '{parameter.name}' is positional-only, but fields have names; remove the `/`"
    return None


def _not_provided(function: str, name: str, known: Iterable[str], imported: Iterable[str]) -> str:
    if name in imported:
        return (
            f"{function}(): nobody provides '{name}'; load_{name} is imported, and only what the adapter itself "
            f"defines counts: write `def load_{name}(): ...` that calls it"
        )
    or_sent = "" if function.startswith("load_") else ", or move it left of the * if callers send it"
    return (
        f"{function}(): nobody provides '{name}'.{did_you_mean(name, known)} Provided are {listed(known)}; "
        f"write load_{name}() to add it{or_sent}"
    )


def _sent(
    function: str, owner: Callable[..., Any], parameter: inspect.Parameter, known: tuple[str, ...], problems: list[str]
) -> list[Parameter]:
    """The parameter, or an empty list if something is wrong with it."""
    name, default = parameter.name, parameter.default
    if parameter.annotation is _P.empty:
        or_right = f"; or move it right of a * if the runner should provide it: *, {name}" if name in known else ""
        problems.append(f"{function}(): parameter '{name}' has no type hint; add one, e.g. {name}: str{or_right}")
        return []
    try:
        hint = resolve(parameter.annotation, owner)
        adapter, _ = adapter_and_schema(hint)
    except HintError as error:
        problems.append(f"{function}(): parameter '{name}' {error}")
        return []
    if default is _P.empty:
        return [Parameter(name, hint, required=True)]
    if isinstance(default, FieldInfo):
        problems.append(
            f"{function}(): parameter '{name}' has Field(...) as its default, which a plain call would receive; "
            f"write {name}: Annotated[{spelt(hint)}, Field(...)] = value"
        )
        return []
    with as_problem(problems, f"{function}(): parameter '{name}': its hint {spelt(hint)}, given its default,"):
        try:
            adapter.validate_python(default, strict=True)
            adapter.dump_python(default, mode="json", by_alias=True)
        except ValueError as error:  # also pydantic's, for what does not fit or cannot be written
            problems.append(_bad_default(function, name, hint, default, error))
            return []
        sent = Parameter(name, hint, required=False, default=default)
        sent.own_default()
        return [sent]
    return []


def _bad_default(function: str, name: str, hint: Any, default: Any, error: Exception) -> str:
    if default is None:
        return (
            f"{function}(): parameter '{name}' may be None, but its hint says {spelt(hint)}; "
            f"write {name}: {spelt(hint)} | None = None"
        )
    reason = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return (
        f"{function}(): the default of '{name}', {shown(default)}, does not fit its hint {spelt(hint)} ({reason}); "
        "correct one of them"
    )
