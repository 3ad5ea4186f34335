"""Every kind of type, with hints kept as text."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import typing
import uuid
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict

from pydantic import BaseModel, Field

if typing.TYPE_CHECKING:
    from numpy import ndarray


class Colour(enum.Enum):
    RED = "red"


class Place(NamedTuple):
    x: int
    y: int = 0


class Inner(TypedDict):
    a: int


class Outer(TypedDict, total=False):
    inner: Inner
    more: list[Outer]


@dataclasses.dataclass
class Box:
    width: float
    colour: Colour = Colour.RED


class Model(BaseModel):
    name: str
    box: Optional[Box] = None  # noqa: UP045 - the older spelling must work too


def run_each(
    dataclass: Box,
    typed_dict: Outer,
    named_tuple: Place,
    enumeration: Colour,
    literal: Literal["a", "b"],
    model: Model,
    moment: datetime.datetime,
    day: datetime.date,
    span: datetime.timedelta,
    number: decimal.Decimal,
    identity: uuid.UUID,
    pair: tuple[int, str],
    many: tuple[int, ...],
    unique: set[int],
    either: int | str,
    nested: dict[str, list[Outer]],
    limited: Annotated[int, Field(ge=1, description="from the hint")],
    anything: Any,
    nothing: None = None,
    absent: Optional[Box] = None,  # noqa: UP045
) -> dict[str, str]:
    return {name: type(value).__name__ for name, value in locals().items()}


def run_awkward(
    copy: int, json: int, schema: int, model_config: int, _x: int, __y: int, self: int, validate: int = 1
) -> list[int]:
    return [copy, json, schema, model_config, _x, __y, self, validate]


def run_provided_hint_is_not_needed(n: int, *, image: ndarray) -> Box:
    return Box(n + len(image))


def load_image():
    return [1, 2, 3]


def run_nested(outer: Outer) -> Outer:
    return outer


def run_default(
    box: Box = Box(2.0),  # noqa: B008
    when: datetime.date = datetime.date(2024, 1, 31),
    names: tuple[str, ...] = (),
) -> Box:
    return box
