"""From a ``runner_adapter.py`` to an :class:`Adapter`, or to a sentence for each mistake in it."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from runnerlib.adapter.assembling import assemble
from runnerlib.adapter.errors import AdapterError, as_problem, listed
from runnerlib.adapter.grouping import group
from runnerlib.adapter.importing import find_adapter, hidden_files, import_adapter, top_level_functions, written_twice
from runnerlib.adapter.model import Adapter, Algorithm, Options, Resource
from runnerlib.adapter.options import read_options
from runnerlib.adapter.signature import BUILT_IN_NAMES, Signature, inspect_handler, inspect_load
from runnerlib.contract import is_algorithm

__all__ = ["AdapterError", "load_adapter"]

_PREFIXES = ("run_", "batch_", "load_")


def load_adapter(path: Path, overrides: Mapping[str, str] = MappingProxyType({})) -> Adapter:
    """Imports and inspects an adapter; calls nothing of it.

    `path` is the file or its folder; `overrides` are environment variables:
    ``OPTION_<ALGORITHM>_<KEY>`` count.
    Raises AdapterError with all mistakes at once.
    """
    file = find_adapter(path)
    module = import_adapter(file)
    problems: list[str] = []
    found = _discover(file, module, problems)
    resources = _resources(found, problems)
    _find_cycles(resources, problems)
    signatures = {}
    for name, function in {**found.runs, **found.batches}.items():
        with as_problem(problems, f"{name}(): its signature"):
            signatures[name] = inspect_handler(name, function, found.loads, found.imported_loads, problems)
    names = list(dict.fromkeys(name.split("_", 1)[1] for name in signatures))
    options: dict[str, Options] = {}
    with as_problem(problems, "OPTIONS"):
        options = read_options(module, names, overrides, problems)
    algorithms = _algorithms(names, signatures, resources, options, problems)
    groups = group(algorithms, problems) if not problems else ()
    if problems:
        raise AdapterError(list(dict.fromkeys(problems)))
    return Adapter(
        file, module, MappingProxyType(algorithms), MappingProxyType(resources), groups, tuple(hidden_files(file))
    )


@dataclass(frozen=True)
class _Found:
    """Functions by their whole names; of loads, by the names they provide."""

    runs: dict[str, Callable[..., Any]]
    batches: dict[str, Callable[..., Any]]
    loads: dict[str, Callable[..., Any]]
    imported_loads: tuple[str, ...]


def _discover(file: Path, module: ModuleType, problems: list[str]) -> _Found:
    own: dict[str, Callable[..., Any]] = {}
    imported: list[str] = []
    written = {one.name: one.lineno for one in top_level_functions(file)}
    for name, value in _prefixed(module):
        if _is_function(value) and value.__module__ == module.__name__:
            own[name] = value
        elif name in written:
            problems.append(
                f"{name}(): the decorator at line {written[name]} hides the function; "
                "use functools.wraps in that decorator"
            )
        elif isinstance(value, functools.partial) or getattr(value, "__module__", None) == module.__name__:
            problems.append(f"{name} is a {type(value).__name__}, not a function; write def {name}(...)")
        else:
            imported.append(name)
    for name, lines in written_twice(file):
        if name.startswith(_PREFIXES):
            problems.append(
                f"{name}() is defined more than once (lines {' and '.join(map(str, lines))}); rename all but one"
            )
    found = _Found(
        runs=_of(own, "run_"),
        batches=_of(own, "batch_"),
        loads={name.removeprefix("load_"): function for name, function in _of(own, "load_").items()},
        imported_loads=tuple(name.removeprefix("load_") for name in imported if name.startswith("load_")),
    )
    _check_names(found, [name for name in imported if name.startswith("run_")], file, problems)
    return found


def _prefixed(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in list(vars(module).items()):
        if name.startswith(_PREFIXES) and callable(value):
            yield name, value


def _is_function(value: Any) -> bool:
    return inspect.isfunction(inspect.unwrap(value))


def _of(functions: Mapping[str, Callable[..., Any]], prefix: str) -> dict[str, Callable[..., Any]]:
    return {name: function for name, function in functions.items() if name.startswith(prefix)}


def _check_names(found: _Found, imported_runs: list[str], file: Path, problems: list[str]) -> None:
    for name in [*found.runs, *found.batches]:
        prefix, _, algorithm = name.partition("_")
        if not is_algorithm(algorithm):
            near = "".join(c if c.isalnum() and c.isascii() else "_" for c in algorithm.lower()).strip("_0123456789")
            problems.append(
                f"{name}(): {algorithm!r} cannot be an algorithm's name; use lower-case letters, digits and _, "
                f"at most 63, starting with a letter, e.g. {prefix}_{near[:40] or 'upper'}"
            )
    for name in found.loads:
        if not name or name in BUILT_IN_NAMES:
            said = f"'{name}' is provided by the runner already" if name else "it has no name after load_"
            problems.append(f"load_{name}(): {said}; choose another name")
    if not (found.runs or found.batches or problems):
        taken = (
            f" ({listed(imported_runs)} {'is' if len(imported_runs) == 1 else 'are'} imported, and only functions "
            "defined in the file itself count)"
        )
        problems.append(
            f"{file.name} has no algorithm{taken if imported_runs else ''}; write one, "
            "e.g. def run_upper(text: str) -> str"
        )


def _resources(found: _Found, problems: list[str]) -> dict[str, Resource]:
    resources = {}
    for name, function in found.loads.items():
        with as_problem(problems, f"load_{name}(): its signature"):
            asked = inspect_load(f"load_{name}", function, found.loads, found.imported_loads, problems)
            resources[name] = Resource(name, function, asked)
    return resources


def _find_cycles(resources: Mapping[str, Resource], problems: list[str]) -> None:
    reported: set[frozenset[str]] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycle = path[path.index(name) :]
            if frozenset(cycle) not in reported:
                reported.add(frozenset(cycle))
                chain = " → ".join(f"load_{one}()" for one in (*cycle, name))
                problems.append(f"{chain}: each needs the next, so none can be first; take one name out")
            return
        for needed in resources[name].provided:
            if needed in resources:
                follow(needed, (*path, name))

    for name in resources:
        follow(name, ())


def _algorithms(
    names: list[str],
    signatures: Mapping[str, Signature],
    resources: Mapping[str, Resource],
    options: Mapping[str, Options],
    problems: list[str],
) -> dict[str, Algorithm]:
    """A function with a mistake of its own is left out: what follows from it would be noise."""
    algorithms = {}
    for name in names:
        run, batch = signatures.get(f"run_{name}"), signatures.get(f"batch_{name}")
        broken = any(problem.startswith((f"run_{name}(", f"batch_{name}(")) for problem in problems)
        if not broken:
            with as_problem(problems, f"{'run' if run else 'batch'}_{name}(): its types, put together,"):
                made = assemble(name, run, batch, resources, options.get(name, Options()), problems)
                if made is not None:
                    algorithms[name] = made
    return algorithms
