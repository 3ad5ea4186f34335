"""Algorithms with fields of every kind, which fail for no payload that fits: whatever breaks is not theirs."""

import asyncio
import datetime
import enum
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

# Two processes for all of them.
OPTIONS = {name: {"process": "quick"} for name in ("parcel", "echo", "remainder", "moment", "nothing")}


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Item:
    name: str
    price: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    parts: list["Item"] = field(default_factory=list)


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


@dataclass
class Receipt:
    items: int
    colour: Colour
    area: str


def run_parcel(
    item: Item,
    shape: Annotated[Circle | Square, Field(discriminator="kind")],
    count: Annotated[int, Field(ge=1, le=100)] = 1,
    labels: Annotated[list[Annotated[str, Field(max_length=20)]], Field(max_length=5)] = [],  # noqa: B006
    colour: Colour = Colour.RED,
    note: str | None = None,
    sizes: dict[str, int] | None = None,
) -> Receipt:
    """Packs something.

    Args:
        item: what, with its parts
        count: how many
    """
    return Receipt(count + len(item.parts), colour, shape.kind)


def run_moment(day: datetime.date, at: datetime.datetime, identity: uuid.UUID, pair: tuple[int, str]) -> list[str]:
    """Dates and ids."""
    return [day.isoformat(), at.isoformat(), str(identity), str(pair[0])]


def run_echo(value: Any) -> Any:
    """Gives back what it was given."""
    return value


def run_nothing() -> None:
    """Takes nothing and says nothing."""


def batch_remainder(number: list[int], divisor: Annotated[int, Field(ge=1, le=97)] = 97) -> list[int]:
    """Many at once."""
    return [each % divisor for each in number]


async def run_pause(milliseconds: Annotated[int, Field(ge=0, le=5)] = 0, *, task: Any) -> str:
    """Waits a moment, and says so."""
    await asyncio.sleep(milliseconds / 1000)
    task.progress(1.0, "rested")
    return "rested"
