"""What is wrong with an adapter, all of it at once."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from runnerlib.adapter.failures import message_of
from runnerlib.contract import near_names

#: Of a value that a sentence shows.
_MAX_SHOWN = 200


class AdapterError(Exception):
    """The adapter cannot be served. `problems` has one sentence for each mistake, with names and advice."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@contextlib.contextmanager
def as_problem(problems: list[str], where: str) -> Iterator[None]:
    """Whatever the author's types raise while they are looked at becomes a sentence: "`where` raised KeyError: 'a'"."""
    try:
        yield
    except BaseException as error:  # the author's code: what it raises is a mistake of this adapter like others
        problems.append(f"{where} raised {message_of(error)}")


def shown(value: Any) -> str:
    """A value in a sentence, whatever the author's ``__repr__`` does."""
    try:
        text = repr(value)
    except Exception:  # an author's __repr__ may raise anything; the type's name still tells something
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or nothing when no known name looks like it."""
    near = near_names(name, known)
    return f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)
