"""Which algorithms share worker processes."""

from collections.abc import Iterable, Mapping

from runnerlib.adapter.errors import listed
from runnerlib.adapter.model import Algorithm, ProcessGroup


def group(algorithms: Mapping[str, Algorithm], problems: list[str]) -> tuple[ProcessGroup, ...]:
    """One group for each algorithm, unless OPTIONS gives several the same ``"process"``."""
    members: dict[tuple[bool, str], list[Algorithm]] = {}
    for algorithm in algorithms.values():
        named = algorithm.options.process
        members.setdefault((named is not None, named or algorithm.name), []).append(algorithm)
    groups = []
    for (is_named, name), found in members.items():
        if is_named:
            problems.extend(_mistakes(name, found, algorithms))
        groups.append(
            ProcessGroup(
                name=name,
                algorithms=tuple(one.name for one in found),
                slots=max(one.slots for one in found),
                is_async=found[0].is_async,
                max_tasks_per_process=_least(one.options.max_tasks_per_process for one in found),
                max_rss_mb=_least(one.options.max_rss_mb for one in found),
            )
        )
    return tuple(groups)


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _mistakes(name: str, members: list[Algorithm], algorithms: Mapping[str, Algorithm]) -> list[str]:
    named = listed(one.name for one in members)
    problems = []
    if name in algorithms and algorithms[name].options.process != name:
        problems.append(
            f'OPTIONS: "process": {name!r} is also the name of an algorithm outside it; choose another name'
        )
    if len({one.is_async for one in members}) > 1:
        problems.append(
            f'OPTIONS: {named} cannot share "process": {name!r}; some are async def and some are not, '
            "give them processes of their own"
        )
    if len({frozenset(one.resources) for one in members}) > 1:
        needs = "; ".join(f"{one.name} needs {listed(one.resources) or 'nothing'}" for one in members)
        problems.append(
            f'OPTIONS: {named} cannot share "process": {name!r}, since they load different things ({needs}); '
            "let them name the same, or give them processes of their own"
        )
    return problems
