"""From a ``runner_adapter.py`` to an :class:`Adapter`, or to a sentence for each mistake in it.

Imports the file with its folder on the path, collects its ``run_*``, ``batch_*`` and ``load_*``, and assembles an
:class:`Algorithm` from signatures, docstring and options.
"""

import ast
import functools
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runnerlib import import_path
from runnerlib.adapter.docs import Callee, Docs, read_docs
from runnerlib.adapter.errors import AdapterError, as_problem, listed, message_of
from runnerlib.adapter.json_types import HintError, adapter_and_schema, arguments_adapter, input_schema, sent_name
from runnerlib.adapter.model import (
    MISSING,
    Adapter,
    Algorithm,
    DocExample,
    Options,
    Parameter,
    Resource,
    in_loading_order,
    process_groups,
)
from runnerlib.adapter.options import read_options
from runnerlib.adapter.signature import BUILT_IN_NAMES, Signature, inspect_handler, inspect_load, merge_batch
from runnerlib.contract import StrictJsonError, is_algorithm, strict_json

ADAPTER_FILE = "runner_adapter.py"
_PREFIXES = ("run_", "batch_", "load_")


def load_adapter(path: Path, overrides: Mapping[str, str] = MappingProxyType({})) -> Adapter:
    """Imports and inspects an adapter; calls nothing of it.

    Parameters:
        path: the file or its folder
        overrides: environment variables; those named ``OPTION_<ALGORITHM>_<KEY>`` override OPTIONS

    Raises:
        AdapterError: with all mistakes at once
    """
    file = find_adapter(path)
    module = import_adapter(file)
    problems: list[str] = []
    found = _collect(file, module, problems)
    resources = _resources(found, problems)
    signatures = {}
    for name, function in {**found.runs, **found.batches}.items():
        with as_problem(problems, f"{name}(): its signature"):
            signatures[name] = inspect_handler(name, function, found.loads, found.imported_loads, problems)
    names = list(dict.fromkeys(name.split("_", 1)[1] for name in signatures))
    options: dict[str, Options] = {}
    with as_problem(problems, "OPTIONS"):
        options = read_options(module, names, overrides, problems)
    algorithms: dict[str, Algorithm] = {}
    for name in names:
        if _is_broken(name, problems):
            continue  # what follows from a function's own mistake would be noise
        run, batch = signatures.get(f"run_{name}"), signatures.get(f"batch_{name}")
        with as_problem(problems, f"{'run' if run else 'batch'}_{name}(): its types, put together,"):
            merged = merge_batch(run, batch, problems)
            made = assemble(name, merged, resources, options.get(name, Options()), problems)
            if made is not None:
                algorithms[name] = made
    groups = process_groups(algorithms, problems) if not problems else ()
    if problems:
        raise AdapterError(list(dict.fromkeys(problems)))
    return Adapter(
        file, module, MappingProxyType(algorithms), MappingProxyType(resources), groups, tuple(_hidden_files(file))
    )


def find_adapter(path: Path) -> Path:
    """The adapter's file; `path` may be its folder. Raises AdapterError."""
    file = path / ADAPTER_FILE if path.is_dir() else path
    if not file.is_file():
        raise AdapterError([f"there is no {file}; write one, or name it with --path or RUNNER_ADAPTER"])
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise AdapterError([f"{file.name} is not a Python module; call it {ADAPTER_FILE}"])
    return file.resolve()


def import_adapter(file: Path) -> ModuleType:
    """Imports the file under its own name. Raises AdapterError with the author's line.

    A second call returns the same module. Another adapter of the same name replaces it, together with the modules it
    imported from its folder, so that a test may load one after the other.
    """
    known = sys.modules.get(file.stem)
    if known is not None:
        if _file_of(known) == file:
            return known
        _forget(known)
    import_path.put_behind(str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the author's code runs here, and may raise anything
        del sys.modules[file.stem]
        raise AdapterError([_import_failure(file, error)]) from error
    return module


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _forget(adapter: ModuleType) -> None:
    """Drops an earlier adapter and what it imported from its folder: its ``models.py`` must not be taken for ours."""
    file = _file_of(adapter)
    sys.modules.pop(adapter.__name__, None)
    if file is None:
        return
    folder = file.parent
    for name, module in list(sys.modules.items()):
        place = folder.joinpath(*name.split("."))
        if _file_of(module) in (place.with_suffix(".py"), place / "__init__.py"):
            del sys.modules[name]
    if str(folder) in sys.path:
        sys.path.remove(str(folder))


def _hidden_files(file: Path) -> list[str]:
    """A sentence for each file beside the adapter whose name keeps it from being imported."""
    return [
        f"{name} is never imported, since {whose} has a module of that name; call it my_{name}"
        for name, whose in import_path.hidden(str(file.parent)).items()
    ]


def _import_failure(file: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        line = _marked_line(error)
        return f"{Path(error.filename).name}, line {error.lineno}: {error.msg}; Python cannot read it{line}"
    ours = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(file.parent)]
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    sentence = f"{file.name} cannot be imported: {message_of(error)}{where}"
    if isinstance(error, ImportError | AttributeError) and (hidden := _hidden_files(file)):
        return f"{sentence}; {' and '.join(hidden)}"
    if isinstance(error, ModuleNotFoundError):
        return f"{sentence}; {_how_to_install(file.parent)}"
    if isinstance(error, SystemExit):
        return f"{sentence}; an adapter must not exit while it is imported"
    return sentence


def _marked_line(error: SyntaxError) -> str:
    """The line, and below it a mark at the error; empty if Python does not know the line."""
    line = (error.text or "").rstrip()
    if not line:
        return ""
    indent = len(line) - len(line.lstrip())
    end = error.end_offset if error.end_lineno == error.lineno else None
    start = max(0, (error.offset or 1) - 1 - indent)
    width = max(1, min((end or 0) - (error.offset or 0), len(line) - indent - start))
    return f"\n    {line.lstrip()}\n    {' ' * start}{'^' * width}"


def _how_to_install(folder: Path) -> str:
    """Tells a package that is not required from one that only this Python lacks."""
    missing = [name for name in _required_names(folder / "requirements.txt") if not _is_installed(name)]
    if not missing:
        return "add the package to requirements.txt and install it"
    return (
        f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} in requirements.txt but not installed in this "
        f"Python; use the runner's own: worker check {folder.name}"
    )


def _required_names(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # What begins otherwise is an option, a path or an address; what has a marker may not be meant for this Python.
    lines = [line.partition("#")[0].strip() for line in text.splitlines() if ";" not in line]
    matches = [re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:[\[<>=!~@\s]|$)", line) for line in lines]
    return [match[1] for match in matches if match]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class _Found:
    """Functions by their whole names; ``load_*`` by the names that they provide."""

    runs: dict[str, Callable[..., Any]] = field(default_factory=dict)
    batches: dict[str, Callable[..., Any]] = field(default_factory=dict)
    loads: dict[str, Callable[..., Any]] = field(default_factory=dict)
    imported_runs: list[str] = field(default_factory=list)
    imported_loads: list[str] = field(default_factory=list)


def _collect(file: Path, module: ModuleType, problems: list[str]) -> _Found:
    found = _Found()
    tree = ast.parse(file.read_bytes())
    written = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = {one.name: one.lineno for one in written}
    for name, value in list(vars(module).items()):
        if not (name.startswith(_PREFIXES) and callable(value)):
            continue
        prefix, _, rest = name.partition("_")
        if inspect.isfunction(inspect.unwrap(value)) and value.__module__ == module.__name__:
            if prefix == "load":
                found.loads[rest] = value
            else:
                (found.runs if prefix == "run" else found.batches)[name] = value
        elif name in lines:
            problems.append(
                f"{name}(): the decorator at line {lines[name]} hides the function; "
                "use functools.wraps in that decorator"
            )
        elif isinstance(value, functools.partial) or getattr(value, "__module__", None) == module.__name__:
            problems.append(f"{name} is a {type(value).__name__}, not a function; write def {name}(...)")
        elif prefix == "run":
            found.imported_runs.append(name)
        elif prefix == "load":
            found.imported_loads.append(rest)
    problems.extend(_written_twice(written))
    _check_names(found, file, problems)
    return found


def _written_twice(functions: Iterable[ast.FunctionDef | ast.AsyncFunctionDef]) -> Iterator[str]:
    """A sentence for each function with more than one definition. Python itself keeps only the last."""
    lines: dict[str, list[str]] = {}
    for one in functions:
        is_overload = any(ast.unparse(decorator).split(".")[-1] == "overload" for decorator in one.decorator_list)
        if one.name.startswith(_PREFIXES) and not is_overload:
            lines.setdefault(one.name, []).append(str(one.lineno))
    for name, places in lines.items():
        if len(places) > 1:
            yield f"{name}() is defined more than once (lines {' and '.join(places)}); rename all but one"


def _check_names(found: _Found, file: Path, problems: list[str]) -> None:
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
        imported = found.imported_runs
        why = (
            f" ({listed(imported)} {'is' if len(imported) == 1 else 'are'} imported, and only functions "
            "defined in the file itself count)"
        )
        problems.append(
            f"{file.name} has no algorithm{why if imported else ''}; write one, e.g. def run_upper(text: str) -> str"
        )


def _resources(found: _Found, problems: list[str]) -> dict[str, Resource]:
    resources = {}
    for name, function in found.loads.items():
        with as_problem(problems, f"load_{name}(): its signature"):
            asked = inspect_load(f"load_{name}", function, found.loads, found.imported_loads, problems)
            resources[name] = Resource(name, function, asked)
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
    return resources


def _is_broken(name: str, problems: list[str]) -> bool:
    return any(problem.startswith((f"run_{name}(", f"batch_{name}(")) for problem in problems)


def assemble(
    name: str, signature: Signature, resources: Mapping[str, Resource], options: Options, problems: list[str]
) -> Algorithm | None:
    """One algorithm from its merged signature. Returns None if something is wrong; `problems` then says what."""
    docs = _docs(name, signature, problems)
    returns, result_schema = _writer(signature, problems)
    parameters = _named(signature, docs, problems)
    if _is_broken(name, problems):
        return None
    arguments = arguments_adapter(name, {p.name: (p.annotation, p.required) for p in parameters})
    payload_schema = input_schema(arguments, parameters, name, docs.summary)
    _check_schemas(signature.name, {"parameters": payload_schema, "return value": result_schema}, problems)
    algorithm = Algorithm(
        name=name,
        handler=signature.function,
        is_async=signature.is_async,
        parameters=parameters,
        provided=signature.provided,
        arguments=arguments,
        payload_schema=payload_schema,
        batch_handler=signature.batch_function,
        batch_provided=signature.batch_provided,
        batched_parameters=signature.batched,
        returns=returns,
        result_schema=result_schema,
        return_hint=signature.returns,
        options=options,
        summary=docs.summary,
        description=docs.description,
        example=docs.example and _as_sent(docs.example, parameters),
        notes=docs.notes,
        resources=tuple(in_loading_order((*signature.provided, *signature.batch_provided), resources)),
    )
    with as_problem(problems, f"{algorithm.function_name}(): its docstring's example, read as a payload,"):
        problems.extend(_example_mistakes(algorithm))
    return None if _is_broken(name, problems) else algorithm


def _docs(name: str, signature: Signature, problems: list[str]) -> Docs:
    parameters, run_name, batch_name = [p.name for p in signature.sent], f"run_{name}", f"batch_{name}"
    run_docs = batch_docs = None
    unread: list[str] = []
    if signature.name != batch_name:
        callee = Callee(run_name, parameters, signature.provided)
        run_docs = read_docs(signature.function.__doc__, callee, problems)
    if signature.batch_function is not None:
        provided = (*signature.provided, *signature.batch_provided)
        callee = Callee(batch_name, parameters, provided, signature.batched, run_name)
        batch_docs = read_docs(signature.batch_function.__doc__, callee, unread if run_docs else problems)
    if run_docs is None or batch_docs is None:
        return run_docs or batch_docs or Docs()
    notes = (*run_docs.notes, *batch_docs.notes, *unread)
    if run_docs.example is None:
        return replace(run_docs, example=batch_docs.example, notes=notes)
    if batch_docs.example is not None:
        notes += (f"{batch_name}(): its example is not run, since {run_name} has one",)
    return replace(run_docs, notes=notes)


def _writer(signature: Signature, problems: list[str]) -> tuple[TypeAdapter[Any] | None, dict[str, Any] | None]:
    if signature.returns is not MISSING:
        try:
            return adapter_and_schema(signature.returns, "serialization")
        except HintError as error:
            problems.append(f"{signature.name}(): the return value {error}")
    return None, None


def _named(signature: Signature, docs: Docs, problems: list[str]) -> tuple[Parameter, ...]:
    """The parameters with the names that callers use, and their descriptions in the docstring."""
    owners: dict[str, str] = {}
    named = []
    for parameter in signature.sent:
        try:
            sent_as = sent_name(parameter.name, parameter.annotation)
        except HintError as error:
            problems.append(f"{signature.name}(): parameter '{parameter.name}' {error}")
            continue
        if sent_as in owners:
            problems.append(
                f"{signature.name}(): callers would send both '{owners[sent_as]}' and '{parameter.name}' as "
                f"'{sent_as}'; give one of them another alias"
            )
        owners[sent_as] = parameter.name
        named.append(replace(parameter, field=sent_as, description=docs.fields.get(parameter.name, "")))
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


def _as_sent(example: DocExample, parameters: Iterable[Parameter]) -> DocExample:
    """From a call's parameters to a payload's fields."""
    fields = {p.name: p.field for p in parameters}
    return replace(example, payload={fields.get(name, name): value for name, value in example.payload.items()})


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
