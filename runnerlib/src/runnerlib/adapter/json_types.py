"""Which types can be read from JSON and written to it: hints become pydantic TypeAdapters, or sentences."""

import collections.abc
import inspect
import re
import sys
import types
import typing
import warnings
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin

import typing_extensions
from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo

#: pydantic would read these lazily and check them inside the handler.
_LAZY = (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator)
_MODULE = re.compile(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")
_ADVICE = "use str, int, float, bool, lists and dicts, dataclasses, or pydantic models"


class HintError(Exception):
    """A hint that cannot be used; the message continues "parameter 'x' …" or "its return hint …"."""


def resolve(hint: Any, function: Any) -> Any:
    """A hint as a type, also when it was written as text (``from __future__ import annotations``)."""
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=namespace, include_extras=True)["hint"]
    except NameError as error:
        raise HintError(
            f"has the hint {spelt(hint)}, but {error.name or error} is not known at run time; "
            "import it, and not under `if TYPE_CHECKING:`"
        ) from None
    except Exception as error:  # text is evaluated, and may raise anything
        raise HintError(f"has the hint {spelt(hint)}, which is no type ({error}); {_ADVICE}") from None


def sent_name(name: str, hint: Any) -> str:
    """What callers name the parameter `name`: its alias, when its hint has one. Raises HintError."""
    aliases = [
        one.validation_alias
        for one in getattr(hint, "__metadata__", ())
        if isinstance(one, FieldInfo) and one.validation_alias is not None
    ]
    alias = aliases[-1] if aliases else name
    if not isinstance(alias, str):
        raise HintError(
            f"has a {type(alias).__name__} as its alias, but a field has one name; write Field(alias='its_name')"
        )
    return alias


def reader(hint: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Adapter and JSON Schema of what callers send. Raises HintError."""
    return _adapter(hint, "validation")


def writer(hint: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Adapter and JSON Schema of what a handler returns. Raises HintError."""
    return _adapter(hint, "serialization")


def arguments_adapter(name: str, fields: dict[str, tuple[Any, bool]]) -> TypeAdapter[dict[str, Any]]:
    """Reads a whole payload: `fields` are hint and whether it is required.

    A TypedDict, not a model: parameters may be called copy, json, schema, model_config or _x, absent ones are left to
    Python's own defaults, and the result passes straight as keyword arguments.
    """
    seen: dict[Any, Any] = {}
    readable = {field: for_pydantic(hint, seen) for field, (hint, _) in fields.items()}
    hints = {
        field: readable[field] if required else typing_extensions.NotRequired[readable[field]]
        for field, (_, required) in fields.items()
    }
    shape = _typed_dict(name, hints)
    shape.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(shape)


def type_adapter(hint: Any) -> TypeAdapter[Any]:
    """pydantic's adapter of one hint."""
    with warnings.catch_warnings():
        # An alias means nothing to the hint alone; it is the name of the field, see sent_name.
        warnings.filterwarnings("ignore", message=".*alias' attribute with value")
        return TypeAdapter(for_pydantic(hint))


def _adapter(hint: Any, mode: typing.Literal["validation", "serialization"]) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    if hint in _LAZY or get_origin(hint) in _LAZY:
        raise HintError(f"has the hint {spelt(hint)}, which is read lazily; write list[...] instead")
    try:
        adapter = type_adapter(hint)
        return adapter, adapter.json_schema(mode=mode)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        if error.code == "typed-dict-version":
            raise HintError(
                f"has the hint {spelt(hint)}, which holds a typing.TypedDict; "
                "on this Python write `from typing_extensions import TypedDict`"
            ) from None
        raise HintError(_unserialisable(hint, error.message)) from None
    except Exception as error:  # types may bring pydantic hooks of their own, which raise what they like
        raise HintError(_unserialisable(hint, f"{type(error).__name__}: {error}")) from None


def _unserialisable(hint: Any, reason: str) -> str:
    # What follows (". Set `arbitrary_types_allowed`…") helps the author of a model, not of a runner.
    first = " ".join(reason.split("\n")[0].split(". Set `")[0].split())
    first = first.replace("Unable to generate pydantic-core schema for", "pydantic has no schema for")
    return f"has the hint {spelt(hint)}, which JSON cannot carry ({first.rstrip('.')}); {_ADVICE}"


def spelt(hint: Any) -> str:
    """A hint as an author would write it, without the modules' names."""
    if isinstance(hint, str):
        return hint
    if isinstance(hint, ForwardRef):
        return hint.__forward_arg__
    if hint is type(None):
        return "None"
    if get_origin(hint) is Annotated:
        return spelt(get_args(hint)[0])
    if isinstance(hint, type) and not get_args(hint):
        return hint.__qualname__
    text = str(hint).replace("typing.", "").replace("NoneType", "None")
    return text if "Literal" in text else _MODULE.sub("", text)


def for_pydantic(hint: Any, seen: dict[Any, Any] | None = None) -> Any:
    """The same hint with ``typing.TypedDict`` replaced.

    Before Python 3.12 pydantic takes only the one of typing_extensions.
    """
    if sys.version_info >= (3, 12):
        return hint
    seen = {} if seen is None else seen
    if isinstance(hint, type) and typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        return _rebuilt(hint, seen)
    parts = get_args(hint)
    origin = get_origin(hint)
    if not parts or origin is typing.Literal or origin is collections.abc.Callable:
        return hint
    if origin is Annotated:
        return Annotated[(for_pydantic(parts[0], seen), *hint.__metadata__)]
    new = tuple(for_pydantic(part, seen) for part in parts)
    if new == parts:
        return hint
    if origin in (Union, types.UnionType):
        return Union[new]  # noqa: UP007 - the members are not known here
    return hint.copy_with(new) if hasattr(hint, "copy_with") else origin[new]


def _typed_dict(name: str, hints: dict[str, Any]) -> Any:
    make: Any = typing_extensions.TypedDict
    return make(name, hints)


def _rebuilt(old: Any, seen: dict[Any, Any]) -> Any:
    if old in seen:
        return seen[old]
    new = _typed_dict(old.__name__, {})
    seen[old] = new
    hints = typing.get_type_hints(old, include_extras=True)
    new.__annotations__ = {name: for_pydantic(hint, seen) for name, hint in hints.items()}
    new.__required_keys__ = old.__required_keys__
    new.__optional_keys__ = old.__optional_keys__
    new.__total__ = old.__total__
    new.__doc__ = old.__doc__
    new.__module__ = old.__module__
    return new
