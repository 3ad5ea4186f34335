"""``shell``: a Python prompt in which the handlers can be called with what callers send."""

import asyncio
import code
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.provided import Task
from runnerlib.adapter.session import LoadError, Session
from runnerlib.fetching.addresses import FetchRules
from runnerlib.settings import option_overrides


def shell(path: Path, device: str, fetch_rules: FetchRules) -> int:
    """Loads everything, then reads lines until the end of input. Raises AdapterError."""
    adapter = load_adapter(path, option_overrides())
    try:
        with Session(adapter, device=device, fetch_rules=fetch_rules) as session:
            names = {**vars(adapter.module), **filled(session)}
            code.interact(banner=_banner(session), local=names, exitmsg="")
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def filled(session: Session) -> dict[str, Callable[..., Any]]:
    """``run_*`` and ``batch_*`` with their provided names filled in; an ``async def`` is run to its end."""
    functions: dict[str, Callable[..., Any]] = {}
    for name, algorithm in session.algorithms.items():
        task = Task("shell", report=_show)
        functions[f"run_{name}"] = _plain(algorithm.handler, session.provided(name, task), algorithm.is_async)
        if algorithm.batch_handler is not None:
            provided = session.provided(name, task, batch=True)
            functions[f"batch_{name}"] = _plain(algorithm.batch_handler, provided, algorithm.is_async)
    return functions


def _plain(function: Callable[..., Any], provided: Mapping[str, Any], is_async: bool) -> Callable[..., Any]:
    given = functools.partial(function, **provided)
    if not is_async:
        return given

    @functools.wraps(function)
    def wait(*arguments: Any, **named: Any) -> Any:
        return asyncio.run(given(*arguments, **named))

    return wait


def _banner(session: Session) -> str:
    lines = [
        f"  run_{name}({', '.join(p.name for p in one.parameters)})  {one.summary}".rstrip()
        for name, one in session.algorithms.items()
    ]
    return "\n".join(["What the runner provides is filled in; Ctrl-D ends.", *lines])


def _show(fraction: float, message: str) -> None:
    print(f"{fraction:4.0%} {message}".rstrip(), file=sys.stderr)
