"""What to do about one runner whose folder may have changed. Pure."""

from dataclasses import dataclass
from enum import Enum


class Step(Enum):
    """The next step of a runner."""

    NOTHING = "nothing"
    #: bring the version that is wanted, instead of one that may be on its way
    BRING = "bring"
    #: give up the version on its way: what is wanted is there already, or was refused before
    STAY = "stay"
    #: the folder is gone
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Versions:
    """A runner's versions, as digests of its code; None where there is none."""

    #: what runs
    serving: str | None = None
    #: what is being checked and started, to take over when it is ready
    coming: str | None = None
    #: the newest that could not take over
    refused: str | None = None
    leaving: bool = False


def next_step(wanted: str | None, versions: Versions) -> Step:
    """`wanted` is what the folder holds now; None when it is gone."""
    under_way = versions.coming is not None or versions.leaving
    if wanted is None:
        is_there = versions.serving is not None or versions.coming is not None
        return Step.LEAVE if is_there and not versions.leaving else Step.NOTHING
    if wanted == versions.coming:
        return Step.NOTHING
    if wanted in (versions.serving, versions.refused):
        return Step.STAY if under_way else Step.NOTHING
    return Step.BRING
