"""Whose turn it is: groups take turns, so that nobody waits for all that another has sent before. Pure."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Generic, TypeVar

Item = TypeVar("Item")

#: Groups that get something in one round.
MOST_GROUPS = 64
#: Before all groups.
START = ""


@dataclass
class Taken(Generic[Item]):
    """`items` in the order in which they are to start; `last`: the group whose turn was the last."""

    items: list[Item] = field(default_factory=list)
    last: str = START
    #: whether a group may not have more of its tasks out, so that some of them wait
    held_back: bool = False


class Turns(Generic[Item]):
    """Takes from groups in turn, beginning behind the group that was the last.

    Parameters:
        groups_after: up to so many groups that have something, in their order, behind this one.
        take: up to so many items of a group, oldest first.
        room: how many more a group may have out, by group; of groups that are not in it any number.
    """

    def __init__(
        self,
        groups_after: Callable[[str, int], Sequence[str]],
        take: Callable[[str, int], Sequence[Item]],
        room: Callable[[Sequence[str]], Mapping[str, int]] = lambda _: {},
    ) -> None:
        self._groups_after = groups_after
        self._take = take
        self._room = room

    def take(self, most: int, last: str = START) -> Taken[Item]:
        """Up to `most` items; fewer only if no group has more that may be out."""
        taken: Taken[Item] = Taken(last=last)
        while len(taken.items) < most and self._round(most - len(taken.items), taken):
            pass
        return taken

    def _round(self, most: int, taken: Taken[Item]) -> bool:
        """Whether anything was taken."""
        room = self._next_groups(min(most, MOST_GROUPS), taken)
        got: dict[str, list[Item]] = {group: [] for group in room}
        open_groups, left, is_first = list(room), most, True
        while open_groups and left > 0:
            share = max(1, left // len(open_groups))
            for group in list(open_groups):
                wanted = min(share, left, room[group] - len(got[group]))
                items = self._take(group, wanted) if wanted > 0 else ()
                got[group].extend(items)
                if items and (is_first or len(room) < MOST_GROUPS):
                    # where not all groups fit into a round, the next one begins behind those that did
                    taken.last = group
                if len(items) < share:
                    taken.held_back |= wanted == len(items) < min(share, left)
                    open_groups.remove(group)
                left -= len(items)
            is_first = False
        taken.items.extend(item for item in chain.from_iterable(zip_longest(*got.values())) if item is not None)
        # groups of which others have just taken all: those behind them may have more
        taken.held_back |= bool(got) and left == most
        return left < most

    def _next_groups(self, count: int, taken: Taken[Item]) -> dict[str, int]:
        """The groups whose turn is next, and how many each may have; once around at most."""
        found: dict[str, int] = {}
        seen: set[str] = set()
        position, is_second_lap = taken.last, taken.last == START
        while len(found) < count:
            page = [group for group in self._groups_after(position, MOST_GROUPS) if group not in seen]
            seen.update(page)
            room = self._room(page)
            taken.held_back |= any(free <= 0 for free in room.values())
            found |= {group: free for group in page if (free := room.get(group, sys.maxsize)) > 0}
            if page:
                position = page[-1]
            elif is_second_lap:
                break
            else:
                position, is_second_lap = START, True
        return dict(list(found.items())[:count])
