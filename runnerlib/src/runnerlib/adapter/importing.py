"""Imports an author's ``runner_adapter.py`` with its folder on the path, and reads what its source alone can tell."""

import ast
import importlib.util
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

from runnerlib import import_path
from runnerlib.adapter.errors import AdapterError
from runnerlib.adapter.failures import message_of

ADAPTER_FILE = "runner_adapter.py"


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

    Imported once: a second call gives the module that is there. Another adapter of the same name replaces it,
    together with the modules it took from its folder, so that a test may load one after the other.
    """
    known = sys.modules.get(file.stem)
    if known is not None and _file_of(known) == file:
        return known
    if known is not None:
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
        raise AdapterError([_failed(file, error)]) from error
    return module


def hidden_files(file: Path) -> list[str]:
    """A sentence for each file beside the adapter that cannot be imported, because of its name."""
    return [
        f"{name} is never imported, since {whose} has a module of that name; call it my_{name}"
        for name, whose in import_path.hidden(str(file.parent)).items()
    ]


def top_level_functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions written directly in the module, in their order."""
    tree = ast.parse(file.read_bytes())
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def written_twice(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Names of functions with more than one definition, and their lines. Python itself keeps only the last."""
    functions = [one for one in top_level_functions(file) if not _is_overload(one)]
    for name, count in Counter(one.name for one in functions).items():
        if count > 1:
            yield name, [one.lineno for one in functions if one.name == name]


def _is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(one).split(".")[-1] == "overload" for one in function.decorator_list)


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _forget(adapter: ModuleType) -> None:
    """Drops an earlier adapter and what it imported from beside it, so that its ``models.py`` is not taken for ours."""
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


def _failed(file: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        shown = _shown(error)
        return f"{Path(error.filename).name}, line {error.lineno}: {error.msg}; Python cannot read it{shown}"
    ours = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(file.parent)]
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    sentence = f"{file.name} cannot be imported: {message_of(error)}{where}"
    if isinstance(error, ImportError | AttributeError) and (hidden := hidden_files(file)):
        return f"{sentence}; {' and '.join(hidden)}"
    if isinstance(error, ModuleNotFoundError):
        return f"{sentence}; {_how_to_get_it(file.parent)}"
    if isinstance(error, SystemExit):
        return f"{sentence}; an adapter must not exit while it is imported"
    return sentence


def _shown(error: SyntaxError) -> str:
    """The line, and below it where Python stumbled; nothing where it does not tell."""
    line = (error.text or "").rstrip()
    if not line:
        return ""
    indent = len(line) - len(line.lstrip())
    end = error.end_offset if error.end_lineno == error.lineno else None
    start = max(0, (error.offset or 1) - 1 - indent)
    width = max(1, min((end or 0) - (error.offset or 0), len(line) - indent - start))
    return f"\n    {line.lstrip()}\n    {' ' * start}{'^' * width}"


def _how_to_get_it(folder: Path) -> str:
    """A module that is missing is one that nobody asked for, or this Python is not the runner's own."""
    missing = [name for name in _required_names(folder / "requirements.txt") if not _is_installed(name)]
    if not missing:
        return "add the package to requirements.txt and install it"
    are = "is" if len(missing) == 1 else "are"
    return (
        f"{', '.join(missing)} {are} in requirements.txt but not installed in this Python; "
        f"use the runner's own: worker check {folder.name}"
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
