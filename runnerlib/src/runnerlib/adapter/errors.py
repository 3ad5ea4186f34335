"""What is wrong with an adapter, all of it at once, and the helpers that put mistakes into sentences."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from runnerlib.contract import near_names

MAX_MESSAGE_BYTES = 4 * 1024
#: Characters of a value that a sentence shows.
_MAX_SHOWN = 200


class AdapterError(Exception):
    """The adapter cannot be served. `problems` has one sentence for each mistake, with names and advice."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@contextlib.contextmanager
def as_problem(problems: list[str], where: str) -> Iterator[None]:
    """Adds whatever the author's types raise to `problems`: "`where` raised KeyError: 'a'"."""
    try:
        yield
    except BaseException as error:  # the author's code: what it raises is a mistake of this adapter like others
        problems.append(f"{where} raised {message_of(error)}")


def message_of(error: BaseException) -> str:
    """``TypeName: text``, cut to 4 KB. Never fails, whatever the author's ``__str__`` does."""
    name, text = type(error).__name__, text_of(error)
    return cut(f"{name}: {text}" if text != name else name)


def text_of(error: BaseException) -> str:
    """The exception's text, or its type's name if it has none."""
    try:
        return str(error) or type(error).__name__
    except BaseException:  # an author's __str__ may raise anything
        return type(error).__name__


def cut(text: str) -> str:
    """`text`, cleaned and within MAX_MESSAGE_BYTES."""
    data = clean(text).encode()
    if len(data) <= MAX_MESSAGE_BYTES:
        return data.decode()
    return data[: MAX_MESSAGE_BYTES - 4].decode(errors="ignore") + "…"


def clean(text: str) -> str:
    """Escapes what JSON and some databases refuse: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def shown(value: Any) -> str:
    """``repr(value)``, shortened. Never fails, whatever the author's ``__repr__`` does."""
    try:
        text = repr(value)
    except Exception:  # an author's __repr__ may raise anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or an empty string if no known name is similar."""
    near = near_names(name, known)
    return f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)
