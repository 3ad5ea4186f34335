"""Which runners there are, every folder with a ``runner_adapter.py``; and which of them an environment has."""

import io
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dotenv.parser import parse_stream

from runnerlib.contract import near_names
from worker.errors import BadScale, BadVariables, NoRunners

ADAPTER_FILE = "runner_adapter.py"
REQUIREMENTS_FILE = "requirements.txt"
#: Variables of this runner alone, secrets perhaps.
ENVIRONMENT_FILE = ".env"
#: Shown before the requirements are installed, if that takes much.
NOTICE_FILE = "before-installing.txt"
#: More processes of one runner on one machine are a typing mistake.
_MOST = 64
#: ``nlp=2``; a folder's name may have spaces.
_SCALE_ENTRY = re.compile(r"([^=\s](?:[^=]*[^=\s])?)\s*=\s*(\d+)")


@dataclass(frozen=True, slots=True)
class RunnerFolder:
    """One runner. `position` is its place among all runners, so that its port does not depend on `--only`.

    `path` may be a symbolic link: the name in the folder of runners counts, wherever the link leads.
    """

    name: str
    path: Path
    position: int

    @property
    def requirements(self) -> Path:
        return self.path / REQUIREMENTS_FILE

    @property
    def notice(self) -> str:
        """What its author wants to be shown before its requirements are installed; mostly empty."""
        try:
            return (self.path / NOTICE_FILE).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""


def list_runners(folder: Path) -> list[RunnerFolder]:
    """Sorted by name. A folder whose name begins with a dot is not a runner (yet)."""
    paths = sorted(path.parent for path in folder.resolve().glob(f"*/{ADAPTER_FILE}") if path.parent.name[0] != ".")
    return [RunnerFolder(path.name, path, position) for position, path in enumerate(paths)]


def find_runners(folder: Path, only: Collection[str] = ()) -> list[RunnerFolder]:
    """Sorted by name. Raises NoRunners if there are none, or if one of `only` is not among them."""
    if not folder.is_dir():
        raise NoRunners(f"{folder} is no folder; name the folder of your runners with --runners")
    found = list_runners(folder)
    if not found:
        raise NoRunners(
            f"{folder} holds no runner: each is a folder with a {ADAPTER_FILE}; make one with: worker new runner NAME"
        )
    check_names(folder, found, only)
    return [runner for runner in found if not only or runner.name in only]


def check_names(folder: Path, found: Collection[RunnerFolder], asked_for: Collection[str]) -> None:
    """Raises NoRunners if one of the names is no runner's."""
    names = [runner.name for runner in found]
    for name in asked_for:
        if name not in names:
            if (folder / name).is_dir():
                raise NoRunners(
                    f"{folder / name} has no {ADAPTER_FILE}: it is no runner of worker's; "
                    "write one, or start it by its own means, see docs/other-languages.md"
                )
            near = near_names(name, names) or names
            raise NoRunners(f"{folder} holds no runner called {name!r}; there are: {', '.join(near)}")


def variables_of(runner: RunnerFolder) -> dict[str, str]:
    """The variables in its `.env`, read as Compose does, except that `$` means itself.

    Raises BadVariables if others may read the file, or if it cannot be read; the message never shows its content.
    """
    file = runner.path / ENVIRONMENT_FILE
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadVariables(f"{file} cannot be read: {why}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadVariables(f"{file} may hold secrets, and others can read it (mode {mode:o}); do: chmod 600 {file}")
    found = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            written = binding.original.string
            line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            raise BadVariables(f"{file}, line {line}: it is not NAME=value")
        if binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


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


def select(folder: Path, scale: str, only: Collection[str]) -> Selection:
    """What the command line and the settings ask for. Raises NoRunners, BadScale."""
    folder = folder.resolve()
    counts = read_scale(scale)
    find_runners(folder, only)
    check_names(folder, list_runners(folder), counts)
    return Selection(folder, frozenset(only), counts)


def scale_without(names: Collection[str], scale: str) -> str:
    """The scale without these runners, unless it names them."""
    return ",".join([*(f"{name}=0" for name in names), scale])


def read_scale(text: str) -> dict[str, int]:
    """Runner → number of processes; later words win, runners not named have one. Raises BadScale."""
    scale: dict[str, int] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        match = _SCALE_ENTRY.fullmatch(entry)
        if match is None:
            raise BadScale(f"{entry!r} does not say how many processes a runner has; write it like nlp=2,text=3")
        name, count = match[1], int(match[2])
        if count > _MOST:
            raise BadScale(f"{name}={count} is more than the {_MOST} processes a runner may have on one machine")
        scale[name] = count
    return scale
