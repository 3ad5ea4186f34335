"""Algorithms as authors might write them, and worse: put together from fragments by a seeded random generator.

A value whose text has "13" in it makes some types and handlers hang or end their process; others raise what they like.
"""

import random
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = Any
Draw = Callable[[random.Random], Json]

PRELUDE = '''
import asyncio, collections, dataclasses, datetime, decimal, enum, math, os, sys, time, typing, uuid, zlib
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union
from pydantic import (
    AfterValidator, AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field,
    PlainSerializer, RootModel, Tag, TypeAdapter, WrapValidator, computed_field, field_serializer, model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, PydanticOmit, PydanticUseDefault
from typing_extensions import TypedDict

SEEN = []


class Own(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise KeyError("not a word")
    __repr__ = __str__


def recurse(value):
    return recurse(value)


def rare(value):
    """What cannot be undone is done for the values of payloads alone, never for defaults."""
    return "13" in repr(value)


def safe(make):
    """Defaults are made while the module is imported, which would be no one algorithm's mistake."""
    try:
        return make()
    except BaseException:
        return None


def unlucky(value, one_in):
    try:
        return zlib.crc32(repr(value).encode("utf-8", "replace")) % one_in == 0
    except Exception:
        return True
'''

#: Payloads of one algorithm that may make it hang or die: each takes a second or two.
MAX_RARE = 2

#: Statements of a function `mischief(value)`; what it raises, or does.
MISCHIEF = [
    *(
        f"if unlucky(value, {{one_in}}): raise {what}"
        for what in (
            "ValueError('not this')", "AssertionError", "KeyError(value)", "RuntimeError('no')", "OSError('away')",
            "MemoryError()", "StopIteration", "StopAsyncIteration", "SystemExit(3)", "KeyboardInterrupt",
            "GeneratorExit", "Own('mine')", "Mute()", "UnicodeError('u')",
            "PydanticCustomError('a', 'b {c}', {'c': object()})",
            "PydanticOmit()", "PydanticUseDefault()", "TimeoutError()", "asyncio.CancelledError()", "Warning('w')",
            "NotImplementedError", "ValueError(chr(0xd800), b'\\xff')", "ValueError('x' * 100_000)", "TypeError('t')",
        )
    ),
    "if unlucky(value, {one_in}): recurse(value)",
    "if unlucky(value, {one_in}): assert not value, Mute()",
    "if unlucky(value, {one_in}): TypeAdapter(int).validate_python('x')",
    "SEEN.append(value)",
    "print('a' * 10_000)",
    "sys.setrecursionlimit(200)",
    "if rare(value): time.sleep(60)",
    "if rare(value): os._exit(7)",
    "if rare(value): os.kill(os.getpid(), 11)",
]  # fmt: skip


def _word(random: random.Random) -> Json:
    return random.choice(["", "a", "b", "red", "13", "x" * 5000, "ключ", "\x00\u2028", "2024-01-31", "1.5", "😀"])


def _whole(random: random.Random) -> Json:
    return random.choice([0, 1, -1, 7, 13, 255, 2**31, 2**53 + 1, 2**64 - 1, -(2**63), random.randrange(100)])


def _number(random: random.Random) -> Json:
    return random.choice([0.0, -0.0, 1.5, 1e308, 1e-320, 3, random.random()])


def _anything(random: random.Random, depth: int = 0) -> Json:
    kind = random.randrange(9 if depth < 4 else 6)
    if kind == 6:
        return [_anything(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 7:
        return {str(_word(random)): _anything(random, depth + 1) for _ in range(random.randrange(4))}
    if kind == 8:
        return _nested(random.randrange(1, 60))
    return random.choice([_word, _whole, _number, lambda _: None, lambda _: True, lambda _: False])(random)


def _nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


def _record(*fields: str) -> Draw:
    return lambda random: {name: random.choice([_word, _whole, _number, _anything])(random) for name in fields}


def _many(inner: Draw) -> Draw:
    return lambda random: [inner(random) for _ in range(random.randrange(4))]


def _of(*values: Json) -> Draw:
    return lambda random: random.choice(values)


@dataclass(frozen=True)
class Fragment:
    """A hint with what it needs; ``{n}`` is the number of its algorithm."""

    hint: str
    draw: Draw
    source: str = ""
    #: expressions of defaults, some of which do not fit
    defaults: tuple[str, ...] = ("None", "1", "'a'", "[]", "float('inf')", "object()", "Mute()")


TYPES = [
    Fragment("int", _whole),
    Fragment("float", _number, defaults=("1.0", "float('nan')", "float('inf')", "None")),
    Fragment("bool", _of(True, False, 0, 1)),
    Fragment("str", _word),
    Fragment("bytes", _word, defaults=("b'a'", "b'\\xff'")),
    Fragment("Any", _anything),
    Fragment("None", _of(None, 0)),
    Fragment("Optional[int]", _whole),
    Fragment("list[int]", _many(_whole), defaults=("[1]", "[]", "(1,)", "['a']")),
    Fragment("dict[str, list[float]]", _record("a", "b"), defaults=("{}", "{'a': [1.0]}", "{'a': [float('nan')]}")),
    Fragment("dict[int, str]", lambda random: {str(_whole(random)): "a"}, defaults=("{1: 'a'}", "{}")),
    Fragment("tuple[int, str]", _of([1, "a"], [13, "b"], [1], "ab"), defaults=("(1, 'a')", "()")),
    Fragment("set[int]", _many(_whole), defaults=("{1}", "set()")),
    Fragment("Literal['a', 'b', 3]", _of("a", "b", 3, "c")),
    Fragment("datetime.datetime", _of("2024-01-31T00:00:00Z", "never", 13), defaults=("datetime.datetime.now()",)),
    Fragment("datetime.timedelta", _of("PT13S", "P1D", 5), defaults=("datetime.timedelta.max",)),
    Fragment("decimal.Decimal", _of("1.10", "NaN", 13, "1e99"), defaults=("decimal.Decimal('NaN')",)),
    Fragment("uuid.UUID", _of("12345678-1234-5678-1234-567812345678", "13")),
    Fragment("Annotated[int, Field(ge=0, le=100)]", _whole),
    Fragment("Annotated[str, Field(pattern='^[a-z]*$', max_length=10)]", _word),
    Fragment("Annotated[list[int], Field(default_factory=list)]", _many(_whole)),
    Fragment("Annotated[str, Field(alias='{alias}')]", _word),
    Fragment("Annotated[Any, AfterValidator(mischief{n})]", _anything),
    Fragment("Annotated[int, BeforeValidator(mischief{n})]", _whole),
    Fragment("Annotated[str, WrapValidator(lambda value, handler: handler(mischief{n}(value)))]", _word),
    Fragment("Annotated[Any, PlainSerializer(mischief{n})]", _anything),
    Fragment(
        "Colour{n}",
        _of("red", "blue", 1, "13", None),
        """
        class Colour{n}(enum.Enum):
            RED = "red"
            ONE = 1
            @classmethod
            def _missing_(cls, value):
                mischief{n}(value)
        """,
        ("Colour{n}.RED", "'red'"),
    ),
    Fragment(
        "Money{n}",
        _record("amount", "currency"),
        """
        @dataclasses.dataclass
        class Money{n}:
            amount: Any = 0
            currency: Any = "EUR"
            def __post_init__(self):
                self.rate = mischief{n}(self.currency)
            def __eq__(self, other):
                raise KeyError("not comparable")
            def __repr__(self):
                return f"Money({mischief{n}(self.currency)})"
        """,
        ("Money{n}()", "Money{n}(1, 'XXX')", "None"),
    ),
    Fragment(
        "Pair{n}",
        _of([1, "a"], {"first": 1}, [13], {"first": "a", "second": []}),
        """
        class Pair{n}(NamedTuple):
            first: int
            second: Any = mischief{n}
        """,
        ("Pair{n}(1, 'a')",),
    ),
    Fragment(
        "Keys{n}",
        _record("a", "b"),
        """
        class Keys{n}(TypedDict, total=False):
            a: Annotated[Any, AfterValidator(mischief{n})]
            b: "Keys{n}"
        """,
        ("{{}}",),
    ),
    Fragment(
        "Model{n}",
        _record("first_name", "firstName", "second", "numbers", "more"),
        """
        class Model{n}(BaseModel):
            model_config = ConfigDict(alias_generator=to_camel, populate_by_name={flag}, extra="{extra}")
            first_name: Any = None
            second: Any = Field(
                default_factory=lambda: mischief{n}(len(SEEN)), validation_alias=AliasChoices("second", "s")
            )
            third: Any = Field(float("nan"), validation_alias=AliasPath("numbers", 0))
            @model_validator(mode="{mode}")
            def look(self):
                mischief{n}(self)
                return self
            @computed_field
            @property
            def computed(self) -> float:
                return mischief{n}(self.second) or math.nan
            @field_serializer("third")
            def write(self, third):
                return mischief{n}(third)
            def __hash__(self):
                return mischief{n}(3)
        """,
        ("Model{n}()", "Model{n}(second='3')"),
    ),
    Fragment(
        "Union[Cat{n}, Dog{n}]",
        lambda random: {"kind": random.choice(["cat", "dog", "cow"]), "inside": _anything(random)},
        """
        class Cat{n}(BaseModel):
            kind: Literal["cat"]
            inside: Optional["Cat{n}"] = None
        class Dog{n}(BaseModel):
            kind: Literal["dog"] = "dog"
            inside: Annotated[Any, AfterValidator(mischief{n})]
        """,
        ("Cat{n}(kind='cat')",),
    ),
    Fragment(
        "Annotated[Union[Annotated[int, Tag('i')], Annotated[str, Tag('s')]], Discriminator(which{n})]",
        _anything,
        """
        def which{n}(value):
            mischief{n}(value)
            return "i" if isinstance(value, int) else "s"
        """,
    ),
    Fragment(
        "Odd{n}",
        _anything,
        """
        class Odd{n}:
            @classmethod
            def __get_pydantic_core_schema__(cls, source, handler):
                from pydantic_core import core_schema
                mischief{n}("schema {n}")
                return core_schema.no_info_plain_validator_function(mischief{n})
            @classmethod
            def __get_pydantic_json_schema__(cls, schema, handler):
                return {{"type": "{{}}", "x-odd": {odd}}}
        """,
    ),
    Fragment("RootModel[list[Annotated[Any, AfterValidator(mischief{n})]]]", _many(_anything)),
    Fragment("typing.Iterable[int]", _many(_whole)),
    Fragment("'Unknown{n}'", _word),
    Fragment("'1 / 0'", _word),
    Fragment("complex", _of("1+2j", 3)),
    Fragment("object", _anything),
]

RESULTS = [
    "value", "[value]", "{{'value': value}}", "str(value)", "None", "float('nan')", "[1.0, float('inf')]", "b'\\xff'",
    "collections.deque([float('nan'), 1])", "(one for one in (None, 1.5))", "{{1: 'a', '1': 'b'}}", "object()", "2**70",
    "{{math.nan: 1}}", "'\\ud800'", "{{'\\ud800': 1}}", "'x' * 2_000_000", "nest(100)", "decimal.Decimal('NaN')",
    "SEEN", "mischief{n}(value)", "type(value)", "{{1, 2}}", "Mute()", "datetime.timedelta.max",
    "-0.0", "True", "'null NaN'",
]  # fmt: skip
RETURNS = [
    "",
    "",
    "",
    " -> Any",
    " -> str",
    " -> list[float]",
    " -> {hint}",
    " -> dict[Any, Any]",
    " -> float",
    " -> 'No'",
]
NAMES = [
    "value_",
    "copy",
    "json",
    "schema",
    "model_config",
    "_x",
    "validate",
    "type",
    "id",
    "größe",
    "self",
    "cls",
    "n" * 60,
]
ALIASES = ["from", "class", "a b", "ключ", "$ref", "$defs", "mapping", "default", "a/b~c", "0", 'say "a"']
DOCSTRINGS = [
    "", "", "Says something.", "First line.\n\n    Args:\n        {name}: what it is\n        nobody: not there\n",
    "\\x1b[31mred[/nonsense] \\u202e", "Ж" * 3000, "X.\n\n    >>> run_{algorithm}(1)\n    1\n",
    "X.\n\n    >>> run_{algorithm}(\n    1\n", "X.\n\n    >>> run_{algorithm}(1e999)\n",
    "X.\n\n    >>> run_{algorithm}({name}='a')  # doctest: +SKIP\n    'a'\n",
    "X.\n\n    >>> run_{algorithm}('a')\n    ...\n", "X.\n\n    >>> 1 + run_{algorithm}(2)\n    9\n",
]  # fmt: skip
#: In a schema, what discovery would refuse.
UNREGISTRABLE = ["2**64", "'\\ud800'", "'x' * 70_000"]


@dataclass(frozen=True)
class Generated:
    """One algorithm and its payloads."""

    name: str
    source: str
    options: dict[str, Any]
    payloads: list[Json] = field(repr=False, default_factory=list)


def generate(random: random.Random, name: str, n: int, payloads: int) -> Generated:
    """An algorithm called `name`; `n`, below 676, tells it from others of the same adapter."""
    tag = chr(97 + n // 26) + chr(97 + n % 26)  # no digits, which could be the ones that make it hang
    first = random.choice(TYPES)
    kind = random.choices(["run", "async", "batch", "both"], [6, 3, 2, 2])[0]
    mischief = random.choice(MISCHIEF).replace("{one_in}", str(random.choice([1, 2, 3, 5])))
    words = {
        "{n}": tag,
        "{algorithm}": name,
        "{name}": (parameter := random.choice(NAMES)),
        "{alias}": random.choice(ALIASES),
        "{flag}": random.choice(["True", "False"]),
        "{extra}": random.choice(["allow", "ignore", "forbid"]),
        "{mode}": random.choice(["after", "after", "before"]),
        "{odd}": random.choice(["1", "object()", "float('nan')", *UNREGISTRABLE, "'a'"]),
        "{hint}": first.hint,
        "{{": "{",
        "}}": "}",
    }

    def filled(text: str) -> str:
        for word, instead in (*words.items(), *words.items()):
            text = text.replace(word, instead)
        return text

    default = f" = safe(lambda: {random.choice(first.defaults)})" if random.random() < 0.3 else ""
    lines = [f"def mischief{tag}(value=None, *more):", f"    {mischief}", "    return value"]
    lines += textwrap.dedent(filled(first.source)).splitlines()
    lines += _functions(random, name, kind, parameter, first, default, filled)
    options: dict[str, Any] = {
        "timeout_seconds": 1,
        "batch": 16,
        "process": "async" if kind == "async" else f"p{n % 3}",
    }
    sent = filled("{alias}") if "alias=" in first.hint else parameter
    drawn: list[Json] = []
    while len(drawn) < payloads:
        payload = _payload(random, sent, first.draw)
        if "13" not in repr(payload) or sum("13" in repr(one) for one in drawn) < MAX_RARE:
            drawn.append(payload)
    return Generated(name, "\n".join(lines), options, drawn)


def _functions(
    random: random.Random,
    name: str,
    kind: str,
    parameter: str,
    first: Fragment,
    default: str,
    filled: Callable[[str], str],
) -> list[str]:
    result, returns = (
        filled(random.choice(RESULTS if random.random() < 0.5 else RESULTS[:5])),
        filled(random.choice(RETURNS if random.random() < 0.3 else RETURNS[:7])),
    )
    docstring = filled(random.choice(DOCSTRINGS if random.random() < 0.3 else DOCSTRINGS[:6]))
    shared = random.choice(["", "", ", shared: Any = 1", ", shared: list[int] = [1]"])
    body = [f'    """{docstring}"""', f"    value = {parameter}"]
    body += [f"    mischief{filled('{n}')}(value)"] * (random.random() < 0.2) + [f"    return {result}"]
    lines: list[str] = []
    if kind in ("run", "async", "both"):
        keyword = "async def" if kind == "async" else "def"
        lines += [f"{keyword} run_{name}({parameter}: {filled(first.hint)}{filled(default)}{shared}){returns}:", *body]
    if kind in ("batch", "both"):
        listed = f" -> list[{returns.removeprefix(' -> ')}]" if returns else ""
        lines += [
            f"def batch_{name}({parameter}: list[{filled(first.hint)}]{shared}){listed}:",
            f"    return [{result} for value in {parameter}]",
        ]
    return lines


def _payload(random: random.Random, parameter: str, draw: Draw) -> Json:
    value = _anything(random) if random.random() < 0.15 else draw(random)
    payload: Json = {parameter: value}
    oddity = random.random()
    if oddity < 0.1:
        payload["shared"] = _anything(random)
    elif oddity < 0.13:
        payload = {}
    elif oddity < 0.16:
        payload = {**payload, str(_word(random)): 1}
    elif oddity < 0.18:
        payload = _anything(random)
    return payload


def adapter_source(algorithms: list[Generated]) -> str:
    """A whole ``runner_adapter.py``, with a well-behaved algorithm in each process."""
    steady = {f"steady_{process}": process for process in sorted({one.options["process"] for one in algorithms})}
    options = {one.name: one.options for one in algorithms} | {
        name: {"process": process} for name, process in steady.items()
    }
    kinds = {name: "async def" if process == "async" else "def" for name, process in steady.items()}
    return "\n\n\n".join(
        [
            f"{PRELUDE}\nOPTIONS = {options!r}",
            "def nest(depth):\n    return [nest(depth - 1)] if depth else 1",
            *(one.source for one in algorithms),
            *(f"{kind} run_{name}(number: int) -> int:\n    return number" for name, kind in kinds.items()),
        ]
    )
