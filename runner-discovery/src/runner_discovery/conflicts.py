"""Runners that offer an algorithm and get no tasks of it. Pure."""

from dataclasses import dataclass

from runnerlib.contract import AlgorithmView


@dataclass(frozen=True, order=True)
class Conflict:
    """A live runner gets no tasks of an algorithm that it offers: its schema is outdated, or another name owns it."""

    algorithm: str
    #: the runner that gets the work; or, for a clash, the owner's name
    current: str
    outdated: str
    is_clash: bool = False


class Conflicts:
    """Those there are, and in `new` those that nobody has been told of yet."""

    def __init__(self) -> None:
        self._known: dict[str, list[Conflict]] = {}
        self.new: list[Conflict] = []

    def note(self, name: str, view: AlgorithmView) -> None:
        """Those of this algorithm are what its view says."""
        found = [Conflict(name, view.runners[0], each) for each in view.outdated]
        found += [Conflict(name, str(view.owner), each, is_clash=True) for each in view.clashing]
        known = {(each.outdated, each.is_clash) for each in self._known.pop(name, ())}
        self.new += [each for each in found if (each.outdated, each.is_clash) not in known]
        if found:
            self._known[name] = found

    def take_new(self) -> list[Conflict]:
        new, self.new = self.new, []
        return new

    def all(self) -> list[Conflict]:
        """One for each live runner and algorithm that it offers but gets no tasks of."""
        return sorted(conflict for conflicts in self._known.values() for conflict in conflicts)

    def counts(self) -> tuple[int, int]:
        """The numbers of outdated runners and of clashes, over all algorithms."""
        clashes = sum(each.is_clash for conflicts in self._known.values() for each in conflicts)
        return sum(map(len, self._known.values())) - clashes, clashes
