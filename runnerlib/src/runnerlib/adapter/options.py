"""Options per algorithm: ``OPTIONS`` of an adapter and the environment variables that override it, checked by key."""

import builtins
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from runnerlib.adapter.errors import did_you_mean, listed
from runnerlib.adapter.model import Options, dotted_name
from runnerlib.contract import is_algorithm
from runnerlib.contract.registry import (
    MAX_BATCH,
    MAX_RATE,
    MAX_RESULT_BYTES,
    MAX_RETRIES,
    MAX_SLOTS,
    MAX_TASKS,
    MAX_TIMEOUT_SECONDS,
)

#: Environment variables that override: ``OPTION_<ALGORITHM>_<KEY>``.
OVERRIDE_PREFIX = "OPTION_"


class _Bad(Exception):
    """A key cannot have this value; the message continues "… must be ", `advice` follows it."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


@dataclass(frozen=True)
class _Key:
    """How to check a value of OPTIONS, and how to read one from the text of an environment variable."""

    check: Callable[[Any, ModuleType], Any]
    read: Callable[[str], Any]
    may_be_none: bool = False


def _seconds(value: Any, _module: ModuleType) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise _Bad("a positive number of seconds")
    if value > MAX_TIMEOUT_SECONDS:
        raise _Bad(f"a number of seconds, at most {MAX_TIMEOUT_SECONDS:.0f} (7 days)")
    return float(value)


def _rate(value: Any, _module: ModuleType) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_RATE:
        raise _Bad(f"a positive number of tasks a second, at most {MAX_RATE:.0f}")
    return float(value)


def _whole(least: int, most: float = math.inf) -> Callable[[Any, ModuleType], int]:
    def check(value: Any, _module: ModuleType) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _Bad(f"a whole number, {least} or more")
        if value > most:
            raise _Bad(f"a whole number, {most} at most")
        return value

    return check


def _process(value: Any, _module: ModuleType) -> str:
    if not is_algorithm(value):
        raise _Bad("a name of lower-case letters, digits and _")
    return str(value)


def _exceptions(value: Any, module: ModuleType) -> tuple[str, ...]:
    """Exception classes, or their names: of the adapter, built in, or dotted. Kept as dotted names."""
    entries = value if isinstance(value, list | tuple | set) else [value]
    return tuple(dotted_name(_exception_class(entry, module)) for entry in entries)


def _exception_class(entry: Any, module: ModuleType) -> type[Exception]:
    found = _look_up(entry, module) if isinstance(entry, str) else entry
    if not (isinstance(found, type) and issubclass(found, Exception)):
        known = [name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, Exception)]
        near = did_you_mean(entry, known) if isinstance(entry, str) else ""
        raise _Bad('exception classes or their names, e.g. ["ValueError"]', near)
    return found


def _look_up(name: str, module: ModuleType) -> Any:
    for place in (module, builtins):
        if hasattr(place, name):
            return getattr(place, name)
    owner, _, attribute = name.rpartition(".")
    if not owner:
        return None
    try:
        return getattr(importlib.import_module(owner), attribute, None)
    except ImportError:
        return getattr(getattr(module, owner, None), attribute, None)


def _names(text: str) -> Any:
    return [one.strip() for one in text.split(",") if one.strip()]


def _int(text: str) -> Any:
    return int(text) if text.strip().lstrip("-").isdecimal() else text


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


_KEYS: Mapping[str, _Key] = {
    "timeout_seconds": _Key(_seconds, _float),
    "retries": _Key(_whole(0, MAX_RETRIES), _int),
    "retry_on": _Key(_exceptions, _names),
    "invalid_payload_on": _Key(_exceptions, _names),
    "batch": _Key(_whole(1, MAX_BATCH), _int),
    "slots": _Key(_whole(1, MAX_SLOTS), _int, may_be_none=True),
    "process": _Key(_process, str, may_be_none=True),
    "max_tasks_per_process": _Key(_whole(1), _int, may_be_none=True),
    "max_rss_mb": _Key(_whole(1), _int, may_be_none=True),
    "result_bytes": _Key(_whole(1, MAX_RESULT_BYTES), _int),
    "most_waiting": _Key(_whole(1, MAX_TASKS), _int, may_be_none=True),
    "most_running": _Key(_whole(1, MAX_TASKS), _int, may_be_none=True),
    "group_slots": _Key(_whole(1, MAX_TASKS), _int, may_be_none=True),
    "rate_per_second": _Key(_rate, _float, may_be_none=True),
}
assert set(_KEYS) == {field.name for field in fields(Options)}


@dataclass(frozen=True)
class _Entry:
    """A value for one option. `place` says where it was written; `written` is what a sentence shows."""

    place: str
    key: str
    value: Any
    written: Any


def read_options(
    module: ModuleType, algorithms: Iterable[str], overrides: Mapping[str, str], problems: list[str]
) -> dict[str, Options]:
    """Options of each algorithm; adds a sentence to `problems` for each mistake.

    `overrides` are environment variables, which win.
    """
    names = list(algorithms)
    options = getattr(module, "OPTIONS", {})
    if not isinstance(options, dict):
        problems.append(
            f"OPTIONS is a {type(options).__name__}; write a dict keyed by algorithm, "
            'e.g. OPTIONS = {"upper": {"timeout_seconds": 30}}'
        )
        options = {}
    problems.extend(_unknown_algorithm(name, names) for name in options if name not in names)
    entries = {name: list(_in_module(name, options.get(name, {}), problems)) for name in names}
    for name, entry in _in_environment(overrides, names, problems):
        entries[name].append(entry)
    return {name: Options(**_checked(entries[name], module, problems)) for name in names}


def _in_module(name: str, written: Any, problems: list[str]) -> Iterator[_Entry]:
    place = f"OPTIONS[{name!r}]"
    if not isinstance(written, dict):
        problems.append(f'{place} is a {type(written).__name__}; write a dict, e.g. {{"timeout_seconds": 30}}')
        return
    for key, value in written.items():
        if key in _KEYS:
            yield _Entry(f"{place}[{key!r}]", key, value, value)
        else:
            near = did_you_mean(str(key), _KEYS)
            problems.append(f"{place}[{key!r}] is not an option.{near} There are {listed(_KEYS)}")


def _in_environment(
    overrides: Mapping[str, str], names: list[str], problems: list[str]
) -> Iterator[tuple[str, _Entry]]:
    """Algorithm and entry of each variable that names an algorithm of this adapter; other variables are ignored."""
    exact = {f"{OVERRIDE_PREFIX}{name.upper()}_{key.upper()}": (name, key) for name in names for key in _KEYS}
    for variable, text in overrides.items():
        if variable in exact:
            name, key = exact[variable]
            is_none = _KEYS[key].may_be_none and text.strip().lower() in ("", "none")
            yield name, _Entry(variable, key, None if is_none else _KEYS[key].read(text), text)
            continue
        for name in names:
            prefix = f"{OVERRIDE_PREFIX}{name.upper()}_"
            if variable.startswith(prefix):
                near = did_you_mean(variable.removeprefix(prefix).lower(), _KEYS)
                problems.append(f"{variable} sets no option of {name!r}.{near} There are {listed(_KEYS)}")
                break


def _checked(entries: Iterable[_Entry], module: ModuleType, problems: list[str]) -> dict[str, Any]:
    values = {}
    for entry in entries:
        key = _KEYS[entry.key]
        try:
            is_none = entry.value is None and key.may_be_none
            values[entry.key] = None if is_none else key.check(entry.value, module)
        except _Bad as error:
            problems.append(f"{entry.place} must be {error}, not {entry.written!r}.{error.advice}")
    return values


def _unknown_algorithm(name: Any, names: list[str]) -> str:
    if isinstance(name, str) and name.startswith("run_") and name.removeprefix("run_") in names:
        return f"OPTIONS[{name!r}]: algorithms are named without run_; write {name.removeprefix('run_')!r}"
    if name in _KEYS:
        return f"OPTIONS[{name!r}] is not an algorithm; options are per algorithm: {{'<algorithm>': {{{name!r}: ...}}}}"
    return (
        f"OPTIONS[{name!r}] is not an algorithm of this adapter.{did_you_mean(str(name), names)} It has {listed(names)}"
    )
