"""Reads the parameters and hints of ``run_*``, ``batch_*`` and ``load_*``, and says what is wrong with them.

``batch_x`` is matched with ``run_x``: which of its parameters does it take as lists?
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ValidationError

from runnerlib.adapter.errors import as_problem, did_you_mean, listed, shown
from runnerlib.adapter.json_types import HintError, adapter_and_schema, resolve, spelt
from runnerlib.adapter.model import MISSING, Parameter
from runnerlib.adapter.values import checked_list
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


def merge_batch(run: Signature | None, batch: Signature | None, problems: list[str]) -> Signature:
    """What is called for one algorithm. At least one of `run` and `batch` is given."""
    if batch is None:
        assert run is not None
        return run
    if "task" in batch.provided:
        problems.append(
            f"{batch.name}(): a batch has many tasks, so there is no 'task'; leave it out here (run_* may ask for it)"
        )
    merged = _derive_run(batch, problems) if run is None else _match_batch(run, batch, problems)
    return replace(merged, batch_function=batch.function, batch_provided=batch.provided)


def _match_batch(run: Signature, batch: Signature, problems: list[str]) -> Signature:
    """Checks that `batch` takes the same fields, each as itself (shared) or as a list (batched)."""
    before = len(problems)
    if run.is_async != batch.is_async:
        problems.append(f"{batch.name}(): one of it and {run.name} is an async def; make both so, or none")
    theirs = {parameter.name: parameter for parameter in batch.sent}
    missing = [p.name for p in run.sent if p.name not in theirs]
    extra = [name for name in theirs if name not in {p.name for p in run.sent}]
    if missing or extra:
        said = [f"it lacks {listed(map(repr, missing))}"] * bool(missing)
        said += [f"{run.name} has no {listed(map(repr, extra))}"] * bool(extra)
        problems.append(f"{batch.name}(): its parameters must be called as those of {run.name}: {' and '.join(said)}")
    batched = [p.name for p in run.sent if p.name in theirs and _is_batched(p, theirs[p.name], run, batch, problems)]
    if not batched and len(problems) == before:
        problems.append(f"{batch.name}(): no parameter is a list of what {run.name} takes, so nothing is batched")
    returns = _element_hint(batch, problems)
    if run.returns is not MISSING:
        if returns not in (MISSING, run.returns):
            problems.append(
                f"{batch.name}(): it returns a list of {spelt(returns)}, but {run.name} returns {spelt(run.returns)}; "
                f"write -> list[{spelt(run.returns)}]"
            )
        returns = run.returns
    return replace(run, returns=returns, batched=tuple(batched))


def _is_batched(ours: Parameter, theirs: Parameter, run: Signature, batch: Signature, problems: list[str]) -> bool:
    if get_origin(theirs.annotation) is list and get_args(theirs.annotation)[0] == ours.annotation:
        if not theirs.required:
            problems.append(f"{batch.name}(): '{ours.name}' is batched and needs no default; {run.name} has it")
        return True
    if theirs.annotation != ours.annotation:
        hint = spelt(ours.annotation)
        problems.append(
            f"{batch.name}(): parameter '{ours.name}' is {spelt(theirs.annotation)}; write "
            f"list[{hint}] to batch it, or {hint} to share it"
        )
    elif ours.required != theirs.required or not (ours.required or bool(ours.default == theirs.default)):
        problems.append(f"{batch.name}(): the shared '{ours.name}' must have the same default as in {run.name}")
    return False


def _derive_run(batch: Signature, problems: list[str]) -> Signature:
    """The ``run_x`` of a ``batch_x`` that stands alone: every ``list[T]`` is batched."""
    batched = []
    parameters = []
    for parameter in batch.sent:
        if get_origin(parameter.annotation) is list:
            batched.append(parameter.name)
            if not parameter.required:
                problems.append(
                    f"{batch.name}(): '{parameter.name}' is batched and can have no default; write run_* for it"
                )
            parameter = replace(parameter, annotation=get_args(parameter.annotation)[0], required=True)
        parameters.append(parameter)
    if not batched and batch.sent:
        problems.append(f"{batch.name}(): no parameter is a list[...], so nothing is batched; write list[T] for those")
    returns = _element_hint(batch, problems)
    single = _run_by_batch(batch, tuple(batched))
    return replace(batch, function=single, sent=tuple(parameters), returns=returns, batched=tuple(batched))


def _run_by_batch(batch: Signature, batched: tuple[str, ...]) -> Callable[..., Any]:
    """A ``run_x`` that calls the batch handler with lists of one."""
    names = [parameter.name for parameter in batch.sent]

    def as_lists(positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        arguments = {**dict(zip(names, positional, strict=False)), **named}
        return {name: [value] if name in batched else value for name, value in arguments.items()}

    def only(returned: Any) -> Any:
        value = checked_list(batch.name, returned, 1)[0]
        if isinstance(value, Exception):
            raise value
        return value

    def run_one(*positional: Any, **named: Any) -> Any:
        return only(batch.function(**as_lists(positional, named)))

    async def run_one_async(*positional: Any, **named: Any) -> Any:
        return only(await batch.function(**as_lists(positional, named)))

    single = run_one_async if batch.is_async else run_one
    single.__name__ = single.__qualname__ = batch.name
    return single


def _element_hint(batch: Signature, problems: list[str]) -> Any:
    """The T of ``-> list[T]``, without the exceptions that may take a result's place; MISSING without a hint."""
    if batch.returns is MISSING or batch.returns is list:
        return MISSING
    if get_origin(batch.returns) is not list:
        problems.append(
            f"{batch.name}(): its return hint is {spelt(batch.returns)}; a batch handler returns list[...], "
            "one entry for each task"
        )
        return MISSING
    element = get_args(batch.returns)[0]
    is_union = get_origin(element) is Union or type(element).__name__ == "UnionType"
    members = get_args(element) if is_union else (element,)
    kept = [one for one in members if not (isinstance(one, type) and issubclass(one, BaseException))]
    if not kept or len(kept) == len(members):
        return element
    return Union[tuple(kept)]  # noqa: UP007 - the members are not known here
