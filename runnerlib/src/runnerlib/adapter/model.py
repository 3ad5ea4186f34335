"""An inspected adapter as frozen data. Made once by :mod:`loading`; routes, schemas and calls are generated from it."""

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from pydantic import TypeAdapter

from runnerlib.adapter.errors import listed
from runnerlib.contract import AlgorithmDescription, Example, Limits, unregistrable

#: Concurrent calls of an ``async def`` handler if OPTIONS does not say.
ASYNC_SLOTS = 32
#: Most tasks in one call if OPTIONS does not say: with a batch handler, where all of them are in memory at once,
BATCH = 64
#: and without, where one follows another. Callers put together what takes 0.1 s at most, so this bounds only tasks of
#: microseconds.
SEQUENCE = 512
#: Stands for a default or a hint that was not written; None may be one.
MISSING: Any = object()
#: Equal JSON gives equal text. Never fails on what JSON gave: infinities and lone surrogates are written, too.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True)
class Options:
    """The options of one algorithm, checked and with defaults."""

    timeout_seconds: float = 300.0
    retries: int = 3
    #: Dotted names of exception classes; a subclass of one of them counts too.
    retry_on: tuple[str, ...] = ()
    #: Exceptions, named in the same way, that mean that the payload is at fault.
    invalid_payload_on: tuple[str, ...] = ()
    #: None: BATCH with a batch handler, SEQUENCE without
    batch: int | None = None
    slots: int | None = None
    process: str | None = None
    max_tasks_per_process: int | None = None
    max_rss_mb: int | None = None
    result_bytes: int = 1024 * 1024
    most_waiting: int | None = None
    most_running: int | None = None
    group_slots: int | None = None
    rate_per_second: float | None = None


def dotted_name(cls: type) -> str:
    """How a class is named in `Options.retry_on` and `Options.invalid_payload_on`."""
    return f"{cls.__module__}.{cls.__qualname__}"


@dataclass(frozen=True)
class Parameter:
    """One field that callers send. `annotation` is the resolved hint."""

    name: str
    annotation: Any
    required: bool
    default: Any = MISSING
    description: str = ""
    #: The name that callers use: the parameter's own, or its alias.
    field: str = ""

    def own_default(self) -> Any:
        """The default for one task: a copy if a handler could change it."""
        return self.default if is_constant(self.default) else copy.deepcopy(self.default)


def is_constant(value: Any) -> bool:
    """Whether neither the value nor anything in it can be changed."""
    if isinstance(value, tuple | frozenset):
        return type(value) in (tuple, frozenset) and all(map(is_constant, value))
    return value is None or type(value) in (bool, int, float, complex, str, bytes) or isinstance(value, Enum)


@dataclass(frozen=True)
class Resource:
    """A ``load_<name>`` function: what it returns or yields is provided as `name`."""

    name: str
    function: Callable[..., Any]
    provided: tuple[str, ...] = ()


def in_loading_order(wanted: Iterable[str], resources: Mapping[str, Resource]) -> list[str]:
    """The resources among `wanted` and all that they need in turn, each after what it needs."""
    order: dict[str, None] = {}

    def add(names: Iterable[str], asking: tuple[str, ...]) -> None:
        for name in names:
            if name in resources and name not in order and name not in asking:
                add(resources[name].provided, (*asking, name))
                order[name] = None

    add(wanted, ())
    return list(order)


@dataclass(frozen=True)
class DocExample:
    """A call found in a docstring. `payload` is what a caller would send; `want` is the output that it shows."""

    payload: dict[str, Any]
    want: str
    #: The value of `want` if it is a plain literal, else MISSING.
    result: Any = MISSING
    #: ``# doctest: +SKIP``: shown in the docs, never run.
    skip: bool = False
    #: False if the call is only part of a line, so that `want` is not its return value.
    is_whole: bool = True


@dataclass(frozen=True, eq=False)
class Algorithm:
    """One ``run_<name>`` and, where the author wrote one, its ``batch_<name>``."""

    name: str
    #: Takes validated arguments and provided names as keywords. Derived from `batch_handler` if only that exists.
    handler: Callable[..., Any]
    is_async: bool
    parameters: tuple[Parameter, ...]
    #: Names right of ``*`` in `handler`; `batch_provided` has those of `batch_handler`.
    provided: tuple[str, ...]
    #: Reads a payload's bytes into keyword arguments, refusing unknown fields.
    arguments: TypeAdapter[dict[str, Any]]
    payload_schema: Mapping[str, Any] = field(repr=False)
    batch_handler: Callable[..., Any] | None = None
    batch_provided: tuple[str, ...] = ()
    #: Parameters that the batch handler takes as ``list[T]``; the others are shared by a whole batch.
    batched_parameters: tuple[str, ...] = ()
    #: Checks and writes results; None if the author gave no return hint.
    returns: TypeAdapter[Any] | None = None
    result_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    return_hint: Any = MISSING
    options: Options = field(default_factory=Options)
    summary: str = ""
    description: str = ""
    example: DocExample | None = None
    #: Remarks for the author that are no mistakes.
    notes: tuple[str, ...] = ()
    #: Names of the ``load_*`` that it needs, also indirectly, in loading order.
    resources: tuple[str, ...] = ()

    @property
    def function_name(self) -> str:
        """The name that the author wrote: ``run_x``, or ``batch_x`` if there is only that."""
        return getattr(self.handler, "__name__", f"run_{self.name}")

    @property
    def has_batch(self) -> bool:
        return self.batch_handler is not None

    @property
    def slots(self) -> int:
        """Calls at the same time: processes of a ``def``, concurrent calls of an ``async def``."""
        return self.options.slots or (ASYNC_SLOTS if self.is_async else 1)

    @property
    def batch_cap(self) -> int:
        """Most tasks in one call; a process that serves n tasks never takes more than n at once."""
        most = self.options.batch or (BATCH if self.has_batch else SEQUENCE)
        return min(most, self.options.max_tasks_per_process or most)

    def validate(self, payload: bytes) -> dict[str, Any]:
        """Reads a payload as JSON into keyword arguments; absent fields are left to the parameters' defaults.

        Raises pydantic.ValidationError.
        """
        return self.arguments.validator.validate_json(payload, strict=True)  # type: ignore[no-any-return]

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the payload."""
        return copy.deepcopy(dict(self.payload_schema))

    def output_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the result; None if the author gave no return hint."""
        return None if self.result_schema is None else copy.deepcopy(dict(self.result_schema))

    def shared_key(self, payload: Any) -> bytes:
        """Equal for payloads that may be in one call of the batch handler: those whose shared fields are the same JSON.

        `payload` is parsed JSON, not validated: no code of the author runs here. So 1 and 1.0 give two keys, and so do
        a field that was left out and one that spells out its default.
        """
        if not self._shares or not isinstance(payload, dict):
            return b""
        shared = {name: value for name, value in payload.items() if name not in self._batched_fields}
        return _canonical(shared).encode() if shared else b""

    def describe(self) -> AlgorithmDescription:
        """What is registered, and what ``schemas`` prints."""
        example = self.example
        result = None if example is None or example.result is MISSING else example.result
        return AlgorithmDescription(
            name=self.name,
            input_schema=self.input_schema(),
            output_schema=self.output_schema(),
            summary=self.summary,
            description=self.description,
            example=Example(payload=example.payload, result=result) if example else None,
            limits=Limits(
                timeout_seconds=self.options.timeout_seconds,
                retries=self.options.retries,
                batch=self.batch_cap,
                batched=self.has_batch,
                slots=self.slots,
                result_bytes=self.options.result_bytes,
                most_waiting=self.options.most_waiting,
                most_running=self.options.most_running,
                group_slots=self.options.group_slots,
                rate_per_second=self.options.rate_per_second,
            ),
        )

    @cached_property
    def changing_defaults(self) -> tuple[Parameter, ...]:
        """Parameters with a default that a handler could change: each task gets a copy."""
        return tuple(p for p in self.parameters if not p.required and not is_constant(p.default))

    @cached_property
    def _batched_fields(self) -> frozenset[str]:
        return frozenset(p.field for p in self.parameters if p.name in self.batched_parameters)

    @cached_property
    def _shares(self) -> bool:
        return self.has_batch and any(p.name not in self.batched_parameters for p in self.parameters)


@dataclass(frozen=True)
class ProcessGroup:
    """Algorithms that run in the same worker processes."""

    name: str
    algorithms: tuple[str, ...]
    #: Processes of this group; if `is_async`, concurrent calls in its one process.
    slots: int
    is_async: bool
    max_tasks_per_process: int | None = None
    max_rss_mb: int | None = None


def process_groups(algorithms: Mapping[str, Algorithm], problems: list[str]) -> tuple[ProcessGroup, ...]:
    """One group for each algorithm, unless OPTIONS gives several the same ``"process"``."""
    members: dict[tuple[bool, str], list[Algorithm]] = {}
    for algorithm in algorithms.values():
        named = algorithm.options.process
        members.setdefault((named is not None, named or algorithm.name), []).append(algorithm)
    groups = []
    for (is_named, name), found in members.items():
        if is_named:
            problems.extend(_group_mistakes(name, found, algorithms))
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


def _group_mistakes(name: str, members: list[Algorithm], algorithms: Mapping[str, Algorithm]) -> list[str]:
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


@dataclass(frozen=True, eq=False)
class Adapter:
    """Everything that was found in one ``runner_adapter.py``."""

    path: Path
    module: ModuleType
    algorithms: Mapping[str, Algorithm]
    resources: Mapping[str, Resource] = field(default_factory=lambda: MappingProxyType({}))
    process_groups: tuple[ProcessGroup, ...] = ()
    #: Remarks for the author that are no mistakes.
    notes: tuple[str, ...] = ()

    def describe(self) -> list[AlgorithmDescription]:
        return [algorithm.describe() for algorithm in self.algorithms.values()]


def registration_problems(adapter: Adapter) -> list[str]:
    """A sentence for each algorithm that discovery would refuse."""
    return [
        f"{adapter.algorithms[name].function_name}(): it cannot be registered and would get no tasks: {reason}"
        for name, reason in unregistrable(adapter.describe()).items()
    ]
