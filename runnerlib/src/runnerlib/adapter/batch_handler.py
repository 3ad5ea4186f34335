"""Matches a batch handler, ``batch_<algorithm>``, with ``run_<algorithm>``: which parameters does it take as lists?"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Union, get_args, get_origin

from runnerlib.adapter.errors import listed
from runnerlib.adapter.json_types import spelt
from runnerlib.adapter.model import MISSING, Parameter
from runnerlib.adapter.signature import Signature
from runnerlib.adapter.values import BadResult


def merge(run: Signature | None, batch: Signature | None, problems: list[str]) -> Signature:
    """What is called for one algorithm. At least one of `run` and `batch` is given."""
    if batch is None:
        assert run is not None
        return run
    if "task" in batch.provided:
        problems.append(
            f"{batch.name}(): a batch has many tasks, so there is no 'task'; leave it out here (run_* may ask for it)"
        )
    merged = _derived(batch, problems) if run is None else _paired(run, batch, problems)
    return replace(merged, batch_function=batch.function, batch_provided=batch.provided)


def _paired(run: Signature, batch: Signature, problems: list[str]) -> Signature:
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
    returns = _element(batch, problems)
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


def _derived(batch: Signature, problems: list[str]) -> Signature:
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
    returns = _element(batch, problems)
    single = _single(batch, tuple(batched))
    return replace(batch, function=single, sent=tuple(parameters), returns=returns, batched=tuple(batched))


def _single(batch: Signature, batched: tuple[str, ...]) -> Callable[..., Any]:
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


def checked_list(function: str, returned: Any, expected: int) -> list[Any]:
    """What a batch handler returned, one entry for each task. Raises BadResult with advice."""
    if hasattr(returned, "tolist"):
        raise BadResult(f"{function}() returned a {type(returned).__name__}; return a list, e.g. with .tolist()")
    if not isinstance(returned, list | tuple):
        raise BadResult(f"{function}() returned a {type(returned).__name__}; return a list, one entry for each task")
    if len(returned) != expected:
        raise BadResult(
            f"{function}() returned {len(returned)} results for {expected} tasks; "
            "return one entry for each, in the same order (an Exception instance fails that one alone)"
        )
    return list(returned)


def _element(batch: Signature, problems: list[str]) -> Any:
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
