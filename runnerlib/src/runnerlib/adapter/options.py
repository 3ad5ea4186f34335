"""``OPTIONS`` of an adapter and what overrides it, checked key by key."""

import builtins
import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from runnerlib.adapter.errors import did_you_mean, listed
from runnerlib.adapter.failures import dotted_name
from runnerlib.adapter.model import Options
from runnerlib.contract import is_algorithm
from runnerlib.contract.registry import MAX_BATCH, MAX_RESULT_BYTES, MAX_RETRIES, MAX_SLOTS, MAX_TIMEOUT_SECONDS

#: Environment variables that override: ``OPTION_<ALGORITHM>_<KEY>``.
OVERRIDE_PREFIX = "OPTION_"


class _Bad(Exception):
    """A value that a key cannot have; the message continues "… must be ", `advice` follows it."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


@dataclass(frozen=True)
class _Key:
    check: Callable[[Any], Any]
    #: From the text of an environment variable to what `check` takes.
    read: Callable[[str], Any]
    may_be_none: bool = False


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise _Bad("a positive number of seconds")
    if value > MAX_TIMEOUT_SECONDS:
        raise _Bad(f"a number of seconds, at most {MAX_TIMEOUT_SECONDS:.0f} (7 days)")
    return float(value)


def _whole(least: int, most: int | None = None) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _Bad(f"a whole number, {least} or more")
        if most is not None and value > most:
            raise _Bad(f"a whole number, {most} at most")
        return value

    return check


def _process(value: Any) -> str:
    if not is_algorithm(value):
        raise _Bad("a name of lower-case letters, digits and _")
    return str(value)


def _keep(value: Any) -> Any:
    return value


def _names(text: str) -> Any:
    return [one.strip() for one in text.split(",") if one.strip()]


def _int(text: str) -> Any:
    return int(text) if text.strip().lstrip("-").isdigit() else text


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


_KEYS: Mapping[str, _Key] = {
    "timeout_seconds": _Key(_seconds, _float),
    "retries": _Key(_whole(0, MAX_RETRIES), _int),
    "retry_on": _Key(_keep, _names),
    "invalid_payload_on": _Key(_keep, _names),
    "batch": _Key(_whole(1, MAX_BATCH), _int),
    "slots": _Key(_whole(1, MAX_SLOTS), _int, may_be_none=True),
    "process": _Key(_process, _keep, may_be_none=True),
    "max_tasks_per_process": _Key(_whole(1), _int, may_be_none=True),
    "max_rss_mb": _Key(_whole(1), _int, may_be_none=True),
    "result_bytes": _Key(_whole(1, MAX_RESULT_BYTES), _int),
}
assert set(_KEYS) == {field.name for field in fields(Options)}


def read_options(
    module: ModuleType, algorithms: Iterable[str], overrides: Mapping[str, str], problems: list[str]
) -> dict[str, Options]:
    """Options of each algorithm; adds a sentence to `problems` for each mistake."""
    names = list(algorithms)
    written = getattr(module, "OPTIONS", {})
    if not isinstance(written, dict):
        problems.append(
            f"OPTIONS is a {type(written).__name__}; write a dict keyed by algorithm, "
            'e.g. OPTIONS = {"upper": {"timeout_seconds": 30}}'
        )
        written = {}
    for name in written:
        if name not in names:
            problems.append(_unknown_algorithm(name, names))
    from_outside = read_overrides(overrides, names, problems)
    found = {}
    for name in names:
        values = _checked(f"OPTIONS[{name!r}]", written.get(name, {}), module, problems)
        for variable, key, text in from_outside.get(name, []):
            values.update(_override(variable, key, text, module, problems))
        found[name] = Options(**values)
    return found


def read_overrides(
    overrides: Mapping[str, str], algorithms: Iterable[str], problems: list[str]
) -> dict[str, list[tuple[str, str, str]]]:
    """For each algorithm: variable, key and text of those that name it. A variable of no algorithm here is let be."""
    names = list(algorithms)
    exact = {f"{OVERRIDE_PREFIX}{name.upper()}_{key.upper()}": (name, key) for name in names for key in _KEYS}
    found: dict[str, list[tuple[str, str, str]]] = {}
    for variable, text in overrides.items():
        if variable in exact:
            name, key = exact[variable]
            found.setdefault(name, []).append((variable, key, text))
            continue
        owner = next((name for name in names if variable.startswith(f"{OVERRIDE_PREFIX}{name.upper()}_")), None)
        if owner is not None:
            key = variable.removeprefix(f"{OVERRIDE_PREFIX}{owner.upper()}_").lower()
            problems.append(
                f"{variable} sets no option of {owner!r}.{did_you_mean(key, _KEYS)} There are {listed(_KEYS)}"
            )
    return found


def _unknown_algorithm(name: Any, names: list[str]) -> str:
    if isinstance(name, str) and name.startswith("run_") and name.removeprefix("run_") in names:
        return f"OPTIONS[{name!r}]: algorithms are named without run_; write {name.removeprefix('run_')!r}"
    if name in _KEYS:
        return f"OPTIONS[{name!r}] is not an algorithm; options are per algorithm: {{'<algorithm>': {{{name!r}: ...}}}}"
    return (
        f"OPTIONS[{name!r}] is not an algorithm of this adapter.{did_you_mean(str(name), names)} It has {listed(names)}"
    )


def _checked(place: str, written: Any, module: ModuleType, problems: list[str]) -> dict[str, Any]:
    if not isinstance(written, dict):
        problems.append(f'{place} is a {type(written).__name__}; write a dict, e.g. {{"timeout_seconds": 30}}')
        return {}
    values = {}
    for key, value in written.items():
        if key not in _KEYS:
            problems.append(
                f"{place}[{key!r}] is not an option.{did_you_mean(str(key), _KEYS)} There are {listed(_KEYS)}"
            )
            continue
        try:
            values[key] = _value(key, value, module)
        except _Bad as error:
            problems.append(f"{place}[{key!r}] must be {error}, not {value!r}.{error.advice}")
    return values


def _override(variable: str, key: str, text: str, module: ModuleType, problems: list[str]) -> dict[str, Any]:
    empty = _KEYS[key].may_be_none and text.strip().lower() in ("", "none")
    try:
        return {key: _value(key, None if empty else _KEYS[key].read(text), module)}
    except _Bad as error:
        problems.append(f"{variable} must be {error}, not {text!r}.{error.advice}")
        return {}


def _value(key: str, value: Any, module: ModuleType) -> Any:
    if value is None and _KEYS[key].may_be_none:
        return None
    if key in ("retry_on", "invalid_payload_on"):
        return _exceptions(value, module)
    return _KEYS[key].check(value)


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
    if hasattr(module, name):
        return getattr(module, name)
    if hasattr(builtins, name):
        return getattr(builtins, name)
    owner, _, attribute = name.rpartition(".")
    if not owner:
        return None
    try:
        return getattr(importlib.import_module(owner), attribute, None)
    except ImportError:
        return getattr(getattr(module, owner, None), attribute, None)
