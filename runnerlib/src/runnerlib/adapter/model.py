"""An inspected adapter as frozen data. Made once by :mod:`loading`; routes, schemas and calls are generated from it."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from pydantic import TypeAdapter

from runnerlib.adapter.results import encode
from runnerlib.contract import AlgorithmDescription, Example, Limits, unregistrable

#: How many calls an ``async def`` handler has at the same time when OPTIONS does not say.
ASYNC_SLOTS = 32
#: A default that was not written, told apart from a default of None.
MISSING: Any = object()
#: Equal JSON gives equal text. It never fails on what JSON gave: infinities and lone surrogates are written, too.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True)
class Parameter:
    """One field that callers send. `annotation` is the resolved hint."""

    name: str
    annotation: Any
    required: bool
    default: Any = MISSING
    description: str = ""
    #: What callers name it: its own name, or its alias.
    field: str = ""

    def own_default(self) -> Any:
        """The default for one task: a copy where a handler could change it."""
        return self.default if is_constant(self.default) else copy.deepcopy(self.default)


def is_constant(value: Any) -> bool:
    """Whether nobody can change the value, or anything in it."""
    if isinstance(value, tuple | frozenset):
        return type(value) in (tuple, frozenset) and all(map(is_constant, value))
    return value is None or type(value) in (bool, int, float, complex, str, bytes) or isinstance(value, Enum)


@dataclass(frozen=True)
class Options:
    """What ``OPTIONS`` says of one algorithm, checked and with its defaults."""

    timeout_seconds: float = 300.0
    retries: int = 3
    #: Dotted names of exception classes; a subclass of one of them counts too.
    retry_on: tuple[str, ...] = ()
    #: The same kind of names: what says that the payload is at fault.
    invalid_payload_on: tuple[str, ...] = ()
    batch: int = 64
    slots: int | None = None
    process: str | None = None
    max_tasks_per_process: int | None = None
    max_rss_mb: int | None = None
    result_bytes: int = 1024 * 1024


@dataclass(frozen=True)
class Resource:
    """A ``load_<name>`` function: what it returns or yields fills the provided name `name`."""

    name: str
    function: Callable[..., Any]
    provided: tuple[str, ...] = ()


@dataclass(frozen=True)
class DocExample:
    """A call found in a docstring. `payload` is what a caller would send; `want` is the text that should be printed."""

    payload: dict[str, Any]
    want: str
    #: The value that `want` spells, when it is a plain literal; MISSING otherwise.
    result: Any = MISSING
    #: ``# doctest: +SKIP``: shown in the docs, never run.
    skip: bool = False
    #: False when the call is only a part of a line, so that `want` is not what the call returns.
    is_whole: bool = True


@dataclass(frozen=True, eq=False)
class Algorithm:
    """One ``run_<name>`` and, where the author wrote one, its ``batch_<name>``."""

    name: str
    #: Takes validated arguments and provided names as keywords. Derived from `batch_handler` when only that exists.
    handler: Callable[..., Any]
    is_async: bool
    parameters: tuple[Parameter, ...]
    #: Names right of ``*``, of `handler` and of `batch_handler`.
    provided: tuple[str, ...]
    #: Reads a payload's bytes into keyword arguments, refusing unknown fields.
    arguments: TypeAdapter[dict[str, Any]]
    payload_schema: Mapping[str, Any] = field(repr=False)
    batch_handler: Callable[..., Any] | None = None
    batch_provided: tuple[str, ...] = ()
    #: Parameters that the batched twin takes as ``list[T]``; the others are shared by a whole batch.
    batched_parameters: tuple[str, ...] = ()
    #: Checks and writes results; None when the author gave no return hint.
    returns: TypeAdapter[Any] | None = None
    result_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    return_hint: Any = MISSING
    options: Options = Options()
    summary: str = ""
    description: str = ""
    example: DocExample | None = None
    #: Things worth telling the author that are no mistakes.
    notes: tuple[str, ...] = ()
    #: Names of the ``load_*`` it needs, also through one another, in the order in which they load.
    resources: tuple[str, ...] = ()

    @property
    def function_name(self) -> str:
        """What the author wrote: ``run_x``, or ``batch_x`` when there is only that."""
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
        per_process = self.options.max_tasks_per_process
        return self.options.batch if per_process is None else min(self.options.batch, per_process)

    def validate(self, payload: bytes) -> dict[str, Any]:
        """Reads a payload as JSON into keyword arguments; absent fields are left to the parameters' defaults.

        Raises pydantic.ValidationError.
        """
        return self._validate_json(payload, strict=True)  # type: ignore[no-any-return]

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the payload."""
        return copy.deepcopy(dict(self.payload_schema))

    def output_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the result; None when the author gave no return hint."""
        return None if self.result_schema is None else copy.deepcopy(dict(self.result_schema))

    def encode_result(self, value: Any) -> bytes:
        """The result as compact JSON. Raises BadResult in words for the author."""
        return encode(value, self.returns, self.options.result_bytes, self.function_name)

    def shared_key(self, payload: Any) -> bytes:
        """Equal for payloads that may be in one call of the batched twin: the same JSON in all fields that it shares.

        `payload` is what JSON gave, unread by the author's types: none of their code runs here. So 1 and 1.0 are two
        keys, and so are a field that was left out and one that spells out its default.
        """
        if not self._shares or not isinstance(payload, dict):
            return b""
        shared = {name: value for name, value in payload.items() if name not in self._batched_fields}
        return _canonical(shared).encode() if shared else b""

    def describe(self) -> AlgorithmDescription:
        """What is registered, and what ``schemas`` prints."""
        return AlgorithmDescription(
            name=self.name,
            input_schema=self.input_schema(),
            output_schema=self.output_schema(),
            summary=self.summary,
            description=self.description,
            example=self._example(),
            limits=Limits(
                timeout_seconds=self.options.timeout_seconds,
                retries=self.options.retries,
                batch=self.batch_cap,
                batched=self.has_batch,
                slots=self.slots,
                result_bytes=self.options.result_bytes,
            ),
        )

    def _example(self) -> Example | None:
        if self.example is None:
            return None
        result = None if self.example.result is MISSING else self.example.result
        return Example(payload=self.example.payload, result=result)

    @cached_property
    def _validate_json(self) -> Callable[..., Any]:
        return self.arguments.validator.validate_json

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
    #: Processes of this group; for `is_async`, concurrent calls in its one process.
    slots: int
    is_async: bool
    max_tasks_per_process: int | None = None
    max_rss_mb: int | None = None


@dataclass(frozen=True, eq=False)
class Adapter:
    """Everything that was found in one ``runner_adapter.py``."""

    path: Path
    module: ModuleType
    algorithms: Mapping[str, Algorithm]
    resources: Mapping[str, Resource] = field(default_factory=lambda: MappingProxyType({}))
    process_groups: tuple[ProcessGroup, ...] = ()
    #: Things worth telling the author that are no mistakes.
    notes: tuple[str, ...] = ()

    def groups(self) -> tuple[ProcessGroup, ...]:
        """One group for each algorithm, unless OPTIONS puts several into the same ``"process"``."""
        return self.process_groups

    def describe(self) -> list[AlgorithmDescription]:
        return [algorithm.describe() for algorithm in self.algorithms.values()]


def registration_problems(adapter: Adapter) -> list[str]:
    """A sentence for each algorithm that discovery would not take."""
    return [
        f"{adapter.algorithms[name].function_name}(): it cannot be registered and would get no tasks: {reason}"
        for name, reason in unregistrable(adapter.describe()).items()
    ]
