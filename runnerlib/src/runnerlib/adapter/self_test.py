"""A docstring's example as a self-test: what to call, and whether it gave what the docstring says."""

import contextlib
import doctest
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from typing_extensions import Self

from runnerlib.adapter.errors import shown
from runnerlib.adapter.failures import message_of
from runnerlib.adapter.model import MISSING, Algorithm, DocExample
from runnerlib.adapter.results import BadResult
from runnerlib.contract import strict_json


@dataclass(frozen=True)
class SelfTest:
    """How an algorithm's example fared. `result` is the encoded result of one that ran."""

    state: Literal["passed", "skipped", "none"]
    result: bytes | None = None


class SelfTestFailed(Exception):
    """The example of a docstring does not give what it says; the message names the function."""


class Rehearsal:
    """One run of an algorithm's example. As a context it turns what the handler raises into SelfTestFailed."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.outcome = SelfTest("none")
        self.runs = algorithm.example is not None and not algorithm.example.skip
        if algorithm.example is not None and algorithm.example.skip:
            self.outcome = SelfTest("skipped")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, SelfTestFailed):
            return
        said = str(error) if isinstance(error, BadResult) else f"it raised {message_of(error)}"
        raise SelfTestFailed(f"{self.algorithm.function_name}(): its example does not work: {said}") from error

    def arguments(self) -> dict[str, Any]:
        """The example's payload, read as a caller's would be."""
        assert self.algorithm.example is not None
        return self.algorithm.validate(strict_json.dumps(self.algorithm.example.payload))

    def judge(self, value: Any) -> None:
        """Takes what the handler returned. Raises SelfTestFailed when the docstring says something else."""
        encoded = self.algorithm.encode_result(value)
        example = self.algorithm.example
        assert example is not None
        if example.is_whole and not _agrees(example, value, encoded):
            raise SelfTestFailed(
                f"{self.algorithm.function_name}(): its example says {example.want.strip() or None}, "
                f"but it returned {shown(value)}; correct one of them (`...` stands for any text, "
                "`# doctest: +SKIP` keeps the example from being run)"
            )
        self.outcome = SelfTest("passed", encoded)


def _agrees(example: DocExample, value: Any, encoded: bytes) -> bool:
    """The same value, the same text as a doctest would have it (`...` matches anything), or the same JSON."""
    with contextlib.suppress(Exception):  # arrays and the author's classes compare as they like
        if example.result is not MISSING and bool(example.result == value):
            return True
    got = "" if value is None else f"{value!r}\n"
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if doctest.OutputChecker().check_output(example.want, got, options):
        return True
    return example.result is not MISSING and bool(strict_json.loads(encoded) == example.result)
