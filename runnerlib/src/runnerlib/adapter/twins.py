"""``batch_<algorithm>``, the batched twin of ``run_<algorithm>``: which of its parameters are lists of the other's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Union, get_args, get_origin

from runnerlib.adapter.errors import listed
from runnerlib.adapter.json_types import spelt
from runnerlib.adapter.model import MISSING, Parameter
from runnerlib.adapter.results import BadResult
from runnerlib.adapter.signature import Signature


@dataclass(frozen=True)
class Twins:
    """What ``run_x`` and ``batch_x`` come to together."""

    handler: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    provided: tuple[str, ...]
    is_async: bool
    returns: Any
    batched: tuple[str, ...] = ()


def pair(run: Signature, batch: Signature, problems: list[str]) -> Twins:
    """Checks that the twin takes the same fields, each as itself (shared) or as a list (batched)."""
    before = len(problems)
    _check_batch(batch, problems)
    if run.is_async != batch.is_async:
        problems.append(f"{batch.name}(): one of it and {run.name} is an async def; make both so, or none")
    theirs = {parameter.name: parameter for parameter in batch.sent}
    missing = [p.name for p in run.sent if p.name not in theirs]
    extra = [name for name in theirs if name not in {p.name for p in run.sent}]
    if missing or extra:
        said = [f"it lacks {listed(map(repr, missing))}"] * bool(missing)
        said += [f"{run.name} has no {listed(map(repr, extra))}"] * bool(extra)
        problems.append(f"{batch.name}(): its parameters must be called as those of {run.name}: {' and '.join(said)}")
    batched = []
    for ours in run.sent:
        other = theirs.get(ours.name)
        if other is None:
            continue
        if is_list_of(other.annotation, ours.annotation):
            batched.append(ours.name)
            if not other.required:
                problems.append(f"{batch.name}(): '{ours.name}' is batched and needs no default; {run.name} has it")
        elif other.annotation != ours.annotation:
            problems.append(
                f"{batch.name}(): parameter '{ours.name}' is {spelt(other.annotation)}; write "
                f"list[{spelt(ours.annotation)}] to batch it, or {spelt(ours.annotation)} to share it"
            )
        elif not _same_default(ours, other):
            problems.append(f"{batch.name}(): the shared '{ours.name}' must have the same default as in {run.name}")
    if not batched and len(problems) == before:
        problems.append(f"{batch.name}(): no parameter is a list of what {run.name} takes, so nothing is batched")
    returns = _pair_returns(run, batch, problems)
    return Twins(run.function, run.sent, run.provided, run.is_async, returns, tuple(batched))


def derive(batch: Signature, problems: list[str]) -> Twins:
    """``run_x`` from ``batch_x`` alone: every ``list[T]`` is batched."""
    _check_batch(batch, problems)
    batched = []
    parameters = []
    for parameter in batch.sent:
        if get_origin(parameter.annotation) is not list:
            parameters.append(parameter)
            continue
        batched.append(parameter.name)
        if not parameter.required:
            problems.append(
                f"{batch.name}(): '{parameter.name}' is batched and can have no default; write run_* for it"
            )
        parameters.append(replace(parameter, annotation=get_args(parameter.annotation)[0], required=True))
    if not batched and batch.sent:
        problems.append(f"{batch.name}(): no parameter is a list[...], so nothing is batched; write list[T] for those")
    handler = _single(batch, tuple(batched))
    returns = element_of(batch, problems)
    return Twins(handler, tuple(parameters), batch.provided, batch.is_async, returns, tuple(batched))


def checked_list(function: str, returned: Any, expected: int) -> list[Any]:
    """What a twin returned, one entry for each member. Raises BadResult with advice."""
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


def is_list_of(hint: Any, element: Any) -> bool:
    return get_origin(hint) is list and get_args(hint)[0] == element


def element_of(batch: Signature, problems: list[str]) -> Any:
    """The T of ``-> list[T]``, without exceptions that may stand in a place; MISSING without a hint."""
    if batch.returns is MISSING or batch.returns is list:
        return MISSING
    if get_origin(batch.returns) is not list:
        problems.append(
            f"{batch.name}(): its return hint is {spelt(batch.returns)}; a batched twin returns list[...], "
            "one entry for each task"
        )
        return MISSING
    element = get_args(batch.returns)[0]
    kept = [one for one in _members(element) if not (isinstance(one, type) and issubclass(one, BaseException))]
    if not kept or len(kept) == len(_members(element)):
        return element
    return Union[tuple(kept)]  # noqa: UP007 - the members are not known here


def _members(hint: Any) -> tuple[Any, ...]:
    """Of ``A | B``: A and B; of another hint: itself."""
    is_union = get_origin(hint) is Union or type(hint).__name__ == "UnionType"
    return get_args(hint) if is_union else (hint,)


def _check_batch(batch: Signature, problems: list[str]) -> None:
    if "task" in batch.provided:
        problems.append(
            f"{batch.name}(): a batch has many tasks, so there is no 'task'; leave it out here (run_* may ask for it)"
        )


def _pair_returns(run: Signature, batch: Signature, problems: list[str]) -> Any:
    element = element_of(batch, problems)
    if run.returns is MISSING:
        return element
    if element is not MISSING and element != run.returns:
        problems.append(
            f"{batch.name}(): it returns a list of {spelt(element)}, but {run.name} returns {spelt(run.returns)}; "
            f"write -> list[{spelt(run.returns)}]"
        )
    return run.returns


def _same_default(ours: Parameter, other: Parameter) -> bool:
    return ours.required == other.required and (ours.required or bool(ours.default == other.default))


def _single(batch: Signature, batched: tuple[str, ...]) -> Callable[..., Any]:
    """A ``run_x`` that calls the twin with lists of one."""

    names = [parameter.name for parameter in batch.sent]

    def listed_once(positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        arguments = {**dict(zip(names, positional, strict=False)), **named}
        return {name: [value] if name in batched else value for name, value in arguments.items()}

    def only(returned: Any) -> Any:
        value = checked_list(batch.name, returned, 1)[0]
        if isinstance(value, Exception):
            raise value
        return value

    def run_one(*positional: Any, **named: Any) -> Any:
        return only(batch.function(**listed_once(positional, named)))

    async def run_one_async(*positional: Any, **named: Any) -> Any:
        return only(await batch.function(**listed_once(positional, named)))

    single = run_one_async if batch.is_async else run_one
    single.__name__ = single.__qualname__ = batch.name
    return single
