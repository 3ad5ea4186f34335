"""Which runners an environment has, and how many processes of each."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from worker.runners import RunnerFolder, check_names, find_runners, list_runners
from worker.scale import read_scale
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Selection:
    """Which of the runners of `folder` an environment has: `only` these names when there are any; `scale` 0 is none."""

    folder: Path
    only: frozenset[str]
    scale: Mapping[str, int]

    def count(self, name: str) -> int:
        if self.only and name not in self.only:
            return 0
        return self.scale.get(name, 1)

    def runners(self) -> list[RunnerFolder]:
        """Those at scale 0 have no place among the others, and so no port; those that are left out by `only` have."""
        scaled = [runner for runner in list_runners(self.folder) if self.scale.get(runner.name, 1)]
        placed = [replace(runner, position=position) for position, runner in enumerate(scaled)]
        return [runner for runner in placed if self.count(runner.name)]


def leaving_out(settings: WorkerSettings, names: Collection[str]) -> WorkerSettings:
    """None of these runners, unless the scale names them."""
    return settings.model_copy(update={"scale": ",".join([*(f"{name}=0" for name in names), settings.scale])})


def select(settings: WorkerSettings, only: Collection[str]) -> Selection:
    """What the command line and the settings ask for. Raises NoRunners, BadScale."""
    folder = settings.runners_folder.resolve()
    scale = read_scale([settings.scale])
    find_runners(folder, only)
    check_names(folder, list_runners(folder), scale)
    return Selection(folder, frozenset(only), scale)
