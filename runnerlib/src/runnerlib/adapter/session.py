"""Calls handlers: loads the resources that they name, provides what they ask for, runs their examples.

No sockets, no processes, no threads.
"""

import asyncio
import contextlib
import doctest
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from typing_extensions import Self

from runnerlib.adapter.errors import message_of, shown
from runnerlib.adapter.model import MISSING, Adapter, Algorithm, DocExample, Resource, in_loading_order
from runnerlib.adapter.provided import AUTO_DEVICE, Metrics, Task, found_device
from runnerlib.adapter.values import BadResult, checked_list, encode_result
from runnerlib.contract import strict_json
from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.fetch import Fetch
from runnerlib.service.logs import get_logger

#: The id of the task that an example of a docstring runs as.
SELF_TEST_ID = "self-test"


class LoadError(Exception):
    """A ``load_*`` function failed; the message names it. `__cause__` is the author's error."""


class SelfTestFailed(Exception):
    """The example of a docstring does not give what it says; the message names the function."""


@dataclass(frozen=True)
class SelfTest:
    """The outcome of an algorithm's example. `result` is the encoded result of one that ran."""

    state: Literal["passed", "skipped", "none"]
    result: bytes | None = None


@dataclass(frozen=True)
class _Call:
    """A handler with everything that does not change from task to task."""

    function: Callable[..., Any]
    constant: Mapping[str, Any] = field(default_factory=dict)
    wants_task: bool = False
    wants_logger: bool = False


class Session:
    """A context manager: entering loads the ``load_*`` that the named algorithms need, leaving tears them down.

    Lives in a worker process; ``run`` and :mod:`runnerlib.testing` use it in their own.

    Parameters:
        algorithms: names of those to be called; default: all
        device: provided as ``device``; "auto" looks for a GPU if a function asks for it
        replacements: values for provided names, used instead of what would be loaded
    """

    def __init__(
        self,
        adapter: Adapter,
        algorithms: Iterable[str] | None = None,
        device: str = "cpu",
        *,
        replacements: Mapping[str, Any] | None = None,
        fetch_rules: FetchRules | None = None,
    ) -> None:
        self.adapter = adapter
        names = adapter.algorithms if algorithms is None else algorithms
        self.algorithms: dict[str, Algorithm] = {name: adapter.algorithms[name] for name in names}
        self.metrics = Metrics()
        fetch = Fetch(fetch_rules or FetchRules())
        self._provided: dict[str, Any] = {"device": device, "metrics": self.metrics, "fetch": fetch}
        self._provided.update(replacements or {})
        self._log = get_logger(adapter.path.stem)
        self._calls: dict[str, _Call] = {}
        self._batch_calls: dict[str, _Call] = {}
        self._loaded = ExitStack()

    def __enter__(self) -> Self:
        """Raises LoadError, after tearing down what was loaded before it."""
        # Neither what was replaced nor what only a replaced one needs.
        loadable = {name: one for name, one in self.adapter.resources.items() if name not in self._provided}
        wanted = [name for one in self.algorithms.values() for name in (*one.provided, *one.batch_provided)]
        needed = [loadable[name] for name in in_loading_order(wanted, loadable)]
        asked = {*wanted, *(name for one in needed for name in one.provided)}
        if self._provided["device"] == AUTO_DEVICE and "device" in asked:
            self._provided["device"] = found_device()
        with ExitStack() as stack:
            for resource in needed:
                self._provided[resource.name] = self._load(resource, stack)
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

    def _load(self, resource: Resource, stack: ExitStack) -> Any:
        """Calls one ``load_*``; the rest of a generator runs when `stack` is closed. Raises LoadError."""
        function = f"load_{resource.name}"
        values = {"logger": self._log.bind(function=function), **self._provided}
        try:
            value = resource.function(**{name: values[name] for name in resource.provided})
            if not inspect.isgenerator(value):
                return value
            loaded = next(value)
        except StopIteration:
            raise LoadError(f"{function}() ended without a yield; write `yield` before what tears down") from None
        except (Exception, SystemExit) as error:  # the author's code: whatever it raises, the runner lives and says why
            raise LoadError(f"{function}() failed: {message_of(error)}") from error
        stack.callback(_tear_down, f"{function}()", value)
        return loaded

    def _bind(self, function: Callable[..., Any], provided: Sequence[str]) -> _Call:
        per_task = {name for name in ("task", "logger") if name in provided and name not in self._provided}
        constant = {name: self._provided[name] for name in provided if name not in per_task}
        return _Call(function, constant, "task" in per_task, "logger" in per_task)

    def uses_task(self, algorithm: str) -> bool:
        """Whether its handler gets anything that depends on the task; if not, calls need none."""
        call = self._calls[algorithm]
        return call.wants_task or call.wants_logger

    def call(self, algorithm: str, arguments: Mapping[str, Any], task: Task | None) -> Any:
        """Calls a handler with validated arguments. An ``async def`` returns its coroutine; what it raises passes."""
        call = self._calls[algorithm]
        return call.function(**self._filled(algorithm, arguments), **self._provide(call, algorithm, task))

    async def call_async(self, algorithm: str, arguments: Mapping[str, Any], task: Task) -> Any:
        """The same for an ``async def`` handler."""
        return await self.call(algorithm, arguments, task)

    def call_here(self, algorithm: str, arguments: Mapping[str, Any], task: Task) -> Any:
        """Calls a handler of either kind where no event loop runs: ``run``, ``shell`` and tests."""
        if self.algorithms[algorithm].is_async:
            return asyncio.run(self.call_async(algorithm, arguments, task))
        return self.call(algorithm, arguments, task)

    def call_batch(self, algorithm: str, arguments: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> list[Any]:
        """Calls the batch handler with members that share their other arguments; each gets a value or an Exception.

        Raises BadResult if the handler returned no list or one of another length.
        """
        if not arguments:
            return []
        returned = self._start_batch(algorithm, arguments, tasks)
        return checked_list(f"batch_{algorithm}", returned, len(arguments))

    async def call_batch_async(
        self, algorithm: str, arguments: Sequence[Mapping[str, Any]], tasks: Sequence[Task]
    ) -> list[Any]:
        """Like :meth:`call_batch` for an ``async def`` handler."""
        if not arguments:
            return []
        returned = await self._start_batch(algorithm, arguments, tasks)
        return checked_list(f"batch_{algorithm}", returned, len(arguments))

    def _start_batch(self, algorithm: str, members: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> Any:
        """Passes a list for each batched parameter, filled up with the default of ``run_x``, and shared values once."""
        call, described = self._batch_calls[algorithm], self.algorithms[algorithm]
        shared = self._filled(algorithm, members[0])
        given: dict[str, Any] = {}
        for parameter in described.parameters:
            name = parameter.name
            if name in described.batched_parameters:
                given[name] = [one[name] if name in one else parameter.own_default() for one in members]
            elif name in shared:
                given[name] = shared[name]
        return call.function(**given, **self._provide(call, algorithm, tasks[0]))

    def provided(self, algorithm: str, task: Task, *, batch: bool = False) -> Mapping[str, Any]:
        """What a handler, or its batch handler, gets for the names right of the ``*``."""
        calls = self._batch_calls if batch else self._calls
        return self._provide(calls[algorithm], algorithm, task)

    def _provide(self, call: _Call, algorithm: str, task: Task | None) -> Mapping[str, Any]:
        if not (call.wants_task or call.wants_logger):
            return call.constant
        if task is None:
            raise TypeError(f"{algorithm!r} uses its task; pass one")
        given = dict(call.constant)
        if call.wants_task:
            given["task"] = task
        if call.wants_logger:
            given["logger"] = self._log.bind(task_id=task.id, algorithm=algorithm)
        return given

    def _filled(self, algorithm: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Adds a default of its own for each absent parameter whose default a handler could change."""
        changing = self.algorithms[algorithm].changing_defaults
        if not changing:
            return arguments
        absent = [p for p in changing if p.name not in arguments]
        return {**arguments, **{p.name: p.own_default() for p in absent}} if absent else arguments

    def self_test(self, algorithm: str) -> SelfTest:
        """Runs the docstring's example once, through the batch handler too if there is one, which also warms up.

        Raises SelfTestFailed with a sentence. Where an event loop runs, await :meth:`self_test_async`.
        """
        described = self.algorithms[algorithm]
        if described.is_async:
            return asyncio.run(self.self_test_async(algorithm))
        if described.example is None or described.example.skip:
            return SelfTest("skipped" if described.example else "none")
        with _example_errors(described):
            arguments, task = described.validate(strict_json.dumps(described.example.payload)), Task(SELF_TEST_ID)
            passed = _compared(described, described.example, self.call(algorithm, arguments, task))
            if described.has_batch:
                self.call_batch(algorithm, [arguments], [task])
        return passed

    async def self_test_async(self, algorithm: str) -> SelfTest:
        """Like :meth:`self_test`, where a loop runs; takes ``def`` handlers too."""
        described = self.algorithms[algorithm]
        if not described.is_async:
            return self.self_test(algorithm)
        if described.example is None or described.example.skip:
            return SelfTest("skipped" if described.example else "none")
        with _example_errors(described):
            arguments, task = described.validate(strict_json.dumps(described.example.payload)), Task(SELF_TEST_ID)
            passed = _compared(described, described.example, await self.call_async(algorithm, arguments, task))
            if described.has_batch:
                await self.call_batch_async(algorithm, [arguments], [task])
        return passed


def _tear_down(function: str, generator: Iterator[Any]) -> None:
    log = get_logger(__name__)
    try:
        next(generator)
    except StopIteration:
        return
    except Exception:  # one failing tear-down must not keep the others from theirs
        log.exception("tear-down failed", function=function)
    else:
        log.warning("a load function yields once; what follows its second yield is not run", function=function)


@contextlib.contextmanager
def _example_errors(algorithm: Algorithm) -> Iterator[None]:
    """Turns what an example raises into SelfTestFailed."""
    try:
        yield
    except SelfTestFailed:
        raise
    except BaseException as error:  # the author's code: whatever it raises, the example does not work
        said = str(error) if isinstance(error, BadResult) else f"it raised {message_of(error)}"
        raise SelfTestFailed(f"{algorithm.function_name}(): its example does not work: {said}") from error


def _compared(algorithm: Algorithm, example: DocExample, value: Any) -> SelfTest:
    """Raises SelfTestFailed if the docstring says something else than `value`."""
    encoded = encode_result(algorithm, value)
    if example.is_whole and not _agrees(example, value, encoded):
        raise SelfTestFailed(
            f"{algorithm.function_name}(): its example says {example.want.strip() or None}, "
            f"but it returned {shown(value)}; correct one of them (`...` stands for any text, "
            "`# doctest: +SKIP` keeps the example from being run)"
        )
    return SelfTest("passed", encoded)


def _agrees(example: DocExample, value: Any, encoded: bytes) -> bool:
    """The same value, the same text as in a doctest (`...` matches anything), or the same JSON."""
    with contextlib.suppress(Exception):  # arrays and the author's classes compare as they like
        if example.result is not MISSING and bool(example.result == value):
            return True
    got = "" if value is None else f"{value!r}\n"
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if doctest.OutputChecker().check_output(example.want, got, options):
        return True
    return example.result is not MISSING and bool(strict_json.loads(encoded) == example.result)
