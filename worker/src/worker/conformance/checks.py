"""A check of the contract, as a value."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from worker.conformance.bench import Bench
from worker.conformance.levels import Level


@dataclass(frozen=True, slots=True)
class Check:
    """`wants` is what the contract wants, as a sentence. `prove` raises Broken, or returns what there is to remark."""

    name: str
    level: Level
    wants: str
    prove: Callable[[Bench], Awaitable[str | None]]
    #: cannot be tried without a payload that takes some seconds
    needs_slow: bool = False
