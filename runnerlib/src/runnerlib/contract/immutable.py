"""A decorator for the small classes of which every task makes several."""

from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def immutable(cls: type[T]) -> type[T]:
    """A dataclass with slots that type checkers hold to be frozen.

    At run time it is not: a frozen dataclass sets each field through `object.__setattr__`, which makes an object of a
    dozen fields five times as expensive.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
