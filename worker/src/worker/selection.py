"""Which runners an environment has, and how many processes of each: ``--only text,nlp --scale nlp=2,text=3``."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from worker.errors import BadScale
from worker.runners import RunnerFolder, check_names, find_runners, list_runners
from worker.settings import WorkerSettings

#: More than this on one machine is a typing mistake.
_MOST = 64
#: A folder's name may have spaces.
_ENTRY = re.compile(r"([^=\s](?:[^=]*[^=\s])?)\s*=\s*(\d+)")


@dataclass(frozen=True)
class Selection:
    """Which runners of `folder` an environment has. `only`: these names, if there are any; `scale` 0 starts none."""

    folder: Path
    only: frozenset[str]
    scale: Mapping[str, int]

    def count(self, name: str) -> int:
        if self.only and name not in self.only:
            return 0
        return self.scale.get(name, 1)

    def runners(self) -> list[RunnerFolder]:
        """Those at scale 0 have no place among the others, and so no port; those that `only` leaves out have."""
        scaled = [runner for runner in list_runners(self.folder) if self.scale.get(runner.name, 1)]
        placed = [replace(runner, position=position) for position, runner in enumerate(scaled)]
        return [runner for runner in placed if self.count(runner.name)]


def select(settings: WorkerSettings, only: Collection[str]) -> Selection:
    """What the command line and the settings ask for. Raises NoRunners, BadScale."""
    folder = settings.runners_folder.resolve()
    scale = read_scale([settings.scale])
    find_runners(folder, only)
    check_names(folder, list_runners(folder), scale)
    return Selection(folder, frozenset(only), scale)


def leaving_out(settings: WorkerSettings, names: Collection[str]) -> WorkerSettings:
    """Settings without these runners, unless the scale names them."""
    return settings.model_copy(update={"scale": ",".join([*(f"{name}=0" for name in names), settings.scale])})


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
        if count > _MOST:
            raise BadScale(f"{name}={count} is more than the {_MOST} processes a runner may have on one machine")
        scale[name] = count
    return scale
