"""Calls handlers: loads what they name, hands in what they ask for. No sockets, no processes, no threads."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from typing_extensions import Self

from runnerlib.adapter.device import AUTO, found_device
from runnerlib.adapter.metrics import Metrics
from runnerlib.adapter.model import Adapter, Algorithm, Resource
from runnerlib.adapter.resources import LoadError, in_loading_order, load
from runnerlib.adapter.self_test import Rehearsal, SelfTest, SelfTestFailed
from runnerlib.adapter.task import Task, TaskCancelled, TaskLike
from runnerlib.adapter.twins import checked_list
from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.fetch import Fetch
from runnerlib.service.logs import get_logger

__all__ = ["LoadError", "SelfTest", "SelfTestFailed", "Session", "Task", "TaskCancelled"]

#: The task that an example of a docstring runs as.
SELF_TEST_ID = "self-test"


@dataclass(frozen=True)
class _Call:
    """A handler with everything that does not change from task to task."""

    function: Callable[..., Any]
    constant: Mapping[str, Any] = field(default_factory=dict)
    wants_task: bool = False
    wants_logger: bool = False


class Session:
    """A context: entering loads the ``load_*`` that the named algorithms need, leaving tears them down.

    `device` may be "auto": then it is looked for when somebody names it.

    Lives in a worker process; ``run`` and :mod:`runnerlib.testing` use it in their own. `replacements` are values for
    provided names, given instead of what would be loaded.
    """

    def __init__(
        self,
        adapter: Adapter,
        algorithms: Iterable[str] | None = None,
        device: str = "cpu",
        *,
        metrics: Metrics | None = None,
        replacements: Mapping[str, Any] | None = None,
        fetch_rules: FetchRules | None = None,
    ) -> None:
        self.adapter = adapter
        names = adapter.algorithms if algorithms is None else algorithms
        self.algorithms: dict[str, Algorithm] = {name: adapter.algorithms[name] for name in names}
        self.metrics = metrics or Metrics()
        fetch = Fetch(fetch_rules or FetchRules())
        self._provided: dict[str, Any] = {
            "device": device,
            "metrics": self.metrics,
            "fetch": fetch,
            **(replacements or {}),
        }
        self._log = get_logger(adapter.path.stem)
        self._calls: dict[str, _Call] = {}
        self._batch_calls: dict[str, _Call] = {}
        self._loaded = ExitStack()

    def __enter__(self) -> Self:
        """Raises LoadError; what was loaded before it is torn down again."""
        needed = self._needed()
        if self._provided["device"] == AUTO and self._names_device(needed):
            self._provided["device"] = found_device()
        with ExitStack() as stack:
            for resource in needed:
                given = {name: self._constant(name, f"load_{resource.name}") for name in resource.provided}
                self._provided[resource.name] = load(resource, given, stack)
            self._loaded = stack.pop_all()
        for algorithm in self.algorithms.values():
            self._calls[algorithm.name] = self._bind(algorithm.handler, algorithm.provided)
            if algorithm.batch_handler is not None:
                self._batch_calls[algorithm.name] = self._bind(algorithm.batch_handler, algorithm.batch_provided)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._loaded.close()

    def call(self, algorithm: str, arguments: Mapping[str, Any], task: TaskLike) -> Any:
        """Calls a ``def`` handler with validated arguments. Whatever it raises passes through."""
        if self.algorithms[algorithm].is_async:
            raise TypeError(f"{algorithm!r} is an async def; await call_async() instead")
        call = self._calls[algorithm]
        return call.function(**self._filled(algorithm, arguments), **self._provide(call, algorithm, task))

    async def call_async(self, algorithm: str, arguments: Mapping[str, Any], task: TaskLike) -> Any:
        """Like :meth:`call` for an ``async def`` handler."""
        call = self._calls[algorithm]
        return await call.function(**self._filled(algorithm, arguments), **self._provide(call, algorithm, task))

    def call_here(self, algorithm: str, arguments: Mapping[str, Any], task: TaskLike) -> Any:
        """Calls a handler of either kind where no event loop runs: ``run``, ``shell`` and tests."""
        if self.algorithms[algorithm].is_async:
            return asyncio.run(self.call_async(algorithm, arguments, task))
        return self.call(algorithm, arguments, task)

    def provided(self, algorithm: str, task: TaskLike, *, batch: bool = False) -> Mapping[str, Any]:
        """What stands right of the ``*`` in a handler, or in its batched twin."""
        calls = self._batch_calls if batch else self._calls
        return self._provide(calls[algorithm], algorithm, task)

    def call_batch(
        self, algorithm: str, arguments: Sequence[Mapping[str, Any]], tasks: Sequence[TaskLike]
    ) -> list[Any]:
        """Calls the batched twin with members that share their other arguments: one value, or an Exception, for each.

        Raises BadResult when what the twin returned is no list or has another length.
        """
        if self.algorithms[algorithm].is_async:
            raise TypeError(f"{algorithm!r} is an async def; await call_batch_async() instead")
        if not arguments:
            return []
        call = self._batch_calls[algorithm]
        given = self._batch_arguments(algorithm, arguments)
        returned = call.function(**given, **self._provide(call, algorithm, tasks[0]))
        return checked_list(f"batch_{algorithm}", returned, len(arguments))

    async def call_batch_async(
        self, algorithm: str, arguments: Sequence[Mapping[str, Any]], tasks: Sequence[TaskLike]
    ) -> list[Any]:
        """Like :meth:`call_batch` for an ``async def`` twin."""
        if not arguments:
            return []
        call = self._batch_calls[algorithm]
        given = self._batch_arguments(algorithm, arguments)
        returned = await call.function(**given, **self._provide(call, algorithm, tasks[0]))
        return checked_list(f"batch_{algorithm}", returned, len(arguments))

    def self_test(self, algorithm: str) -> SelfTest:
        """Runs the docstring's example once, which also warms up; through the twin too, when there is one.

        Raises SelfTestFailed with a sentence. Where an event loop runs, await :meth:`self_test_async`.
        """
        if self.algorithms[algorithm].is_async:
            return asyncio.run(self.self_test_async(algorithm))
        rehearsal = Rehearsal(self.algorithms[algorithm])
        with rehearsal:
            if rehearsal.runs:
                arguments, task = rehearsal.arguments(), Task(SELF_TEST_ID)
                rehearsal.judge(self.call(algorithm, arguments, task))
                if rehearsal.algorithm.has_batch:
                    self.call_batch(algorithm, [arguments], [task])
        return rehearsal.outcome

    async def self_test_async(self, algorithm: str) -> SelfTest:
        """Like :meth:`self_test`, where a loop runs; takes ``def`` handlers too."""
        if not self.algorithms[algorithm].is_async:
            return self.self_test(algorithm)
        rehearsal = Rehearsal(self.algorithms[algorithm])
        with rehearsal:
            if rehearsal.runs:
                arguments, task = rehearsal.arguments(), Task(SELF_TEST_ID)
                rehearsal.judge(await self.call_async(algorithm, arguments, task))
                if rehearsal.algorithm.has_batch:
                    await self.call_batch_async(algorithm, [arguments], [task])
        return rehearsal.outcome

    def _needed(self) -> list[Resource]:
        """What to load, in order; not what was replaced, nor what only a replaced one needs."""
        loadable = {name: one for name, one in self.adapter.resources.items() if name not in self._provided}
        wanted = [name for one in self.algorithms.values() for name in (*one.provided, *one.batch_provided)]
        return [loadable[name] for name in in_loading_order(wanted, loadable)]

    def _names_device(self, needed: Iterable[Resource]) -> bool:
        loads = any("device" in one.provided for one in needed)
        return loads or any("device" in (*one.provided, *one.batch_provided) for one in self.algorithms.values())

    def _constant(self, name: str, owner: str) -> Any:
        if name == "logger" and name not in self._provided:
            return self._log.bind(function=owner)
        return self._provided[name]

    def _bind(self, function: Callable[..., Any], provided: Sequence[str]) -> _Call:
        per_task = {name for name in ("task", "logger") if name in provided and name not in self._provided}
        constant = {name: self._provided[name] for name in provided if name not in per_task}
        return _Call(function, constant, "task" in per_task, "logger" in per_task)

    def _provide(self, call: _Call, algorithm: str, task: TaskLike) -> Mapping[str, Any]:
        if not (call.wants_task or call.wants_logger):
            return call.constant
        given = dict(call.constant)
        if call.wants_task:
            given["task"] = task
        if call.wants_logger:
            given["logger"] = self._log.bind(task_id=task.id, algorithm=algorithm)
        return given

    def _filled(self, algorithm: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """With a default of its own for each absent parameter whose default a handler could change."""
        changing = self.algorithms[algorithm].changing_defaults
        absent = [p for p in changing if p.name not in arguments]
        return {**arguments, **{p.name: p.own_default() for p in absent}} if absent else arguments

    def _batch_arguments(self, algorithm: str, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A list for each batched parameter, filled up with the default of ``run_x``; shared values once."""
        described = self.algorithms[algorithm]
        shared = self._filled(algorithm, members[0])
        given: dict[str, Any] = {}
        for parameter in described.parameters:
            name = parameter.name
            if name in described.batched_parameters:
                given[name] = [one[name] if name in one else parameter.own_default() for one in members]
            elif name in shared:
                given[name] = shared[name]
        return given
