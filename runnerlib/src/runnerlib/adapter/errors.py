"""What is wrong with an adapter, all of it at once."""

from collections.abc import Iterable, Sequence

from runnerlib.contract import near_names


class AdapterError(Exception):
    """The adapter cannot be served. `problems` has one sentence for each mistake, with names and advice."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or nothing when no known name looks like it."""
    near = near_names(name, known)
    return f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)
