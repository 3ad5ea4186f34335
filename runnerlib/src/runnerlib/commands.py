"""What ``python -m runnerlib`` can do beside serving: ``check``, ``run``, ``schemas`` and ``shell``.

Each takes the adapter's file or its folder, calls handlers in this process, and returns an exit code.
"""

import asyncio
import code
import functools
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runnerlib.adapter.errors import did_you_mean, listed, shown
from runnerlib.adapter.json_types import spelt
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import Adapter, Algorithm, registration_problems
from runnerlib.adapter.provided import Task
from runnerlib.adapter.session import LoadError, SelfTestFailed, Session
from runnerlib.adapter.values import BadResult, InvalidPayload, ValidatorFailed, classify, encode_result, read_arguments
from runnerlib.contract import StrictJsonError, strict_json
from runnerlib.fetching.addresses import FetchRules
from runnerlib.settings import option_overrides

#: The exit code for algorithms that cannot be registered: the runner can be started and serves the others.
UNREGISTRABLE = 4


class _Refused(Exception):
    """The call could not be made; the message says why."""


def check(path: Path, device: str, fetch_rules: FetchRules, *, self_test: bool) -> int:
    """Prints one line for each algorithm. Raises AdapterError for mistakes.

    1 when an example fails; UNREGISTRABLE when an algorithm cannot be registered, and the others work.
    """
    adapter = load_adapter(path, option_overrides())
    count = len(adapter.algorithms)
    print(f"{adapter.path.name}: {count} {'algorithm' if count == 1 else 'algorithms'}")
    for algorithm in adapter.algorithms.values():
        print(f"  {_describe(algorithm)}")
    for note in (*adapter.notes, *(note for algorithm in adapter.algorithms.values() for note in algorithm.notes)):
        print(f"note: {note}")
    problems = registration_problems(adapter)
    for problem in problems:
        print(problem, file=sys.stderr)
    failed = _self_test(adapter, device, fetch_rules) if self_test else 0
    return failed or (UNREGISTRABLE if problems else 0)


def _describe(algorithm: Algorithm) -> str:
    fields = ", ".join(
        f"{p.field}: {spelt(p.annotation)}" + ("" if p.required else f" = {shown(p.default)}")
        for p in algorithm.parameters
    )
    returns = "" if algorithm.returns is None else f" -> {spelt(algorithm.return_hint)}"
    traits = ["batched"] * algorithm.has_batch + ["async"] * algorithm.is_async
    suffix = f"  [{', '.join(traits)}]" if traits else ""
    return f"{algorithm.name}({fields}){returns}{suffix}  {algorithm.summary or '(no docstring)'}"


def _self_test(adapter: Adapter, device: str, fetch_rules: FetchRules) -> int:
    failed = False
    try:
        with Session(adapter, device=device, fetch_rules=fetch_rules) as session:
            for name in adapter.algorithms:
                try:
                    state = session.self_test(name).state
                except SelfTestFailed as error:
                    failed = True
                    print(error, file=sys.stderr)
                    if isinstance(error.__cause__, KeyboardInterrupt):
                        break  # perhaps somebody pressed Ctrl-C
                else:
                    print(f"example of {name}: {'not there' if state == 'none' else state}")
    except LoadError as error:
        failed = True
        print(error, file=sys.stderr)
    return 1 if failed else 0


def run(path: Path, device: str, fetch_rules: FetchRules, name: str, payload: str) -> int:
    """Makes one call as a sender would, and prints the result as JSON; returns 1 when it fails. Raises AdapterError."""
    # What an author prints must not mix with the result.
    with redirect_stdout(sys.stderr):
        adapter = load_adapter(path, option_overrides())
        try:
            algorithm = _find_algorithm(adapter, name)
            arguments = _read_arguments(algorithm, sys.stdin.read() if payload == "-" else payload)
            session = Session(adapter, [algorithm.name], device, fetch_rules=fetch_rules)
            result = _call(session, algorithm, arguments)
        except (_Refused, LoadError, BadResult) as error:
            print(error, file=sys.stderr)
            return 1
    print(result.decode())
    return 0


def _find_algorithm(adapter: Adapter, name: str) -> Algorithm:
    found = adapter.algorithms.get(name) or adapter.algorithms.get(name.removeprefix("run_"))
    if found is None:
        known = adapter.algorithms
        raise _Refused(f"there is no algorithm {name!r}.{did_you_mean(name, known)} There are {listed(known)}")
    return found


def _read_arguments(algorithm: Algorithm, payload: str) -> dict[str, Any]:
    try:
        data = strict_json.dumps(strict_json.loads(payload))
    except StrictJsonError as error:
        raise _Refused(f"the payload is {error}; write it like '{_example_payload(algorithm)}'") from None
    try:
        return read_arguments(algorithm, data)
    except InvalidPayload as error:
        cause = error.__cause__
        sentences = (
            _sentences(algorithm, cause) if isinstance(cause, ValidationError) else [f"{algorithm.name}: {error}"]
        )
        raise _Refused("\n".join(sentences)) from None
    except ValidatorFailed as error:
        raise _Refused(_failure(algorithm, "a type that reads the payload", error)) from None


def _example_payload(algorithm: Algorithm) -> str:
    payload = {p.field: "…" for p in algorithm.parameters if p.required}
    return strict_json.dumps(algorithm.example.payload if algorithm.example else payload).decode()


def _sentences(algorithm: Algorithm, error: ValidationError) -> list[str]:
    """One sentence for each field at fault."""
    name, fields = algorithm.name, [p.field for p in algorithm.parameters]
    found = []
    for one in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in one["loc"])
        message = f"{one['msg'][:1].lower()}{one['msg'][1:]}"
        got = "" if one["type"] == "missing" else f", not {shown(one['input']):.80}"
        if one["type"] == "extra_forbidden" and len(one["loc"]) == 1:
            near = did_you_mean(place, fields)
            found.append(f"{name} has no field '{place}'.{near} There are {listed(fields) or 'none'}")
        elif place:
            found.append(f"{name}: field '{place}': {message}{got}")
        else:
            found.append(f"{name}: the payload: {message}")
    return found


def _call(session: Session, algorithm: Algorithm, arguments: dict[str, Any]) -> bytes:
    task = Task("run", report=_print_progress)
    with session, closing(task):
        try:
            value = session.call_here(algorithm.name, arguments, task)
        except (Exception, SystemExit) as error:  # the author's code: this command is asked to show what it raises
            raise _Refused(_failure(algorithm, f"{algorithm.function_name}()", error)) from None
        return encode_result(algorithm, value)


def _failure(algorithm: Algorithm, who: str, error: BaseException) -> str:
    found = classify(error, algorithm.options)
    kind = "transient: it would be retried" if found.retryable else "permanent: it would not be retried"
    return f"{found.traceback or ''}{who} failed ({kind}): {found.message}"


def _print_progress(fraction: float, message: str) -> None:
    print(f"{fraction:4.0%} {message}".rstrip(), file=sys.stderr)


def schemas(path: Path) -> int:
    """Prints every algorithm as it will be registered."""
    with redirect_stdout(sys.stderr):
        adapter = load_adapter(path, option_overrides())
    described = [one.model_dump(mode="json") for one in adapter.describe()]
    print(json.dumps(described, ensure_ascii=False, indent=2))
    return 0


def shell(path: Path, device: str, fetch_rules: FetchRules) -> int:
    """A Python prompt in which handlers can be called with what callers send. Raises AdapterError."""
    adapter = load_adapter(path, option_overrides())
    try:
        with Session(adapter, device=device, fetch_rules=fetch_rules) as session:
            names = {**vars(adapter.module), **_functions(session)}
            code.interact(banner=_banner(session), local=names, exitmsg="")
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _functions(session: Session) -> dict[str, Callable[..., Any]]:
    """``run_*`` and ``batch_*`` with their provided names filled in; an ``async def`` is run to its end."""
    functions: dict[str, Callable[..., Any]] = {}
    for name, algorithm in session.algorithms.items():
        task = Task("shell", report=_print_progress)
        functions[f"run_{name}"] = _with_provided(algorithm.handler, session.provided(name, task), algorithm.is_async)
        if algorithm.batch_handler is not None:
            provided = session.provided(name, task, batch=True)
            functions[f"batch_{name}"] = _with_provided(algorithm.batch_handler, provided, algorithm.is_async)
    return functions


def _with_provided(function: Callable[..., Any], provided: Mapping[str, Any], is_async: bool) -> Callable[..., Any]:
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
