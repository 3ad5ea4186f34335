"""Makes the folder of a new runner, all at once: a running environment starts it the moment it exists."""

import ast
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

from runnerlib.contract import is_algorithm
from worker.errors import BadName
from worker.runners import ADAPTER_FILE, REQUIREMENTS_FILE, list_runners

_FILES = (ADAPTER_FILE, REQUIREMENTS_FILE, f"test_{ADAPTER_FILE}", "Dockerfile", "compose.yml")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_HANDLER = re.compile(r"(?:run|batch)_(.+)")
_FOLDER_MODE = 0o755
#: What `producer` uses by default.
_USUAL_GATEWAY = "http://127.0.0.1:8000"


def algorithm_of(name: str) -> str:
    """The algorithm that a new runner of this name begins with. Raises BadName."""
    algorithm = name.replace("-", "_")
    if _NAME.fullmatch(name) and is_algorithm(algorithm):
        return algorithm
    better = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_0123456789")[:40]
    advice = f"; for example: {better}" if is_algorithm(better.replace("-", "_")) else ""
    raise BadName(
        f"{name!r} cannot be a runner's name: it is a small letter, then small letters, digits, - and _, "
        f"63 characters at most{advice}"
    )


def make_runner(folder: Path, name: str) -> Path:
    """A new folder `name` in the folder of runners. Overwrites nothing. Raises BadName, OSError."""
    algorithm = algorithm_of(name)
    target = folder / name
    if target.exists() or target.is_symlink():
        raise BadName(f"{target} is there already; choose another name, or remove it first")
    _check_is_new(folder, algorithm)
    folder.mkdir(parents=True, exist_ok=True)
    # A folder whose name begins with a dot is no runner; renaming makes it one, with all its files.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
    try:
        for file in _FILES:
            template = files("worker").joinpath("templates", f"{file}.txt").read_text(encoding="utf-8")
            content = Template(template).substitute(algorithm=algorithm, name=name)
            (unfinished / file).write_text(content, encoding="utf-8")
        unfinished.chmod(_FOLDER_MODE)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return target


def _check_is_new(folder: Path, algorithm: str) -> None:
    """An algorithm belongs to the runner that registered it first: another that offers it gets no tasks of it."""
    for runner in list_runners(folder):
        if algorithm in _algorithms(runner.path / ADAPTER_FILE):
            raise BadName(
                f"the runner {runner.name} offers the algorithm {algorithm!r} already, and the new one would "
                f"get no tasks of it; choose another name, or edit {runner.path / ADAPTER_FILE}"
            )


def _algorithms(adapter: Path) -> set[str]:
    try:
        tree = ast.parse(adapter.read_bytes())
    except (OSError, SyntaxError, ValueError):
        # It offers nothing as it stands.
        return set()
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {match[1] for name in names if (match := _HANDLER.fullmatch(name))}


def next_steps(target: Path, name: str, *, is_followed: bool, gateway: str = _USUAL_GATEWAY) -> str:
    """What to do now, for somebody who has never done it.

    `is_followed`: a running environment starts it by itself; `gateway`: where that accepts tasks, or will.
    """
    algorithm = algorithm_of(name)
    where = "" if gateway == _USUAL_GATEWAY else f"GATEWAY_URL={gateway} "
    try:
        shown = target.relative_to(Path.cwd())
    except ValueError:
        shown = target
    joins = (
        "The environment that runs takes it up by itself, and again whenever you save a file of it."
        if is_followed
        else "It starts with the others: worker up"
    )
    return f"""made {shown}; it works as it is. {joins}

Next:
  1. edit two lines of {shown / ADAPTER_FILE}:
         return text          what it does
         'hi'                 what the example above it gives then
  2. {where}producer send {algorithm} '{{"text": "hi"}}' --wait

Its mistakes: worker check {name}      One call: worker run {name} {algorithm} '{{"text": "hi"}}'
Its tests: worker test-runners --only {name}
In a container: ./build.sh {name}, then
  docker compose -f docker-compose.yml -f runners/{name}/compose.yml up -d --wait {name}-runner
What else an adapter can do: docs/writing-a-runner.md"""
