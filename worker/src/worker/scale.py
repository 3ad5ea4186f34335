"""How many processes each runner has: ``nlp=2,text=3``."""

import re
from collections.abc import Iterable

from worker.errors import BadScale

#: More than this on one machine is a slip of the pen.
MOST = 64
#: A folder's name may have spaces.
_ENTRY = re.compile(r"([^=\s](?:[^=]*[^=\s])?)\s*=\s*(\d+)")


def read_scale(words: Iterable[str]) -> dict[str, int]:
    """Runner → number of processes; later words win, runners not named have one. Raises BadScale."""
    scale: dict[str, int] = {}
    for entry in (part.strip() for word in words for part in word.split(",")):
        if not entry:
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise BadScale(f"{entry!r} does not say how many processes a runner has; write it like nlp=2,text=3")
        name, count = match[1], int(match[2])
        if count > MOST:
            raise BadScale(f"{name}={count} is more than the {MOST} processes a runner may have on one machine")
        scale[name] = count
    return scale
