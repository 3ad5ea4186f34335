"""Which files lie below a folder, also through symbolic links; never without an end."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: What makes a folder a virtual environment.
_VENV_FILE = "pyvenv.cfg"
#: What decides how a package is built; beside these files, some folders are what building it leaves.
PACKAGING_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_BUILT = ("build", "dist")
#: Building a package leaves it beside the modules, wherever these are.
_METADATA = ".egg-info"
#: Behind one link so many files and folders are looked at; what is larger is data.
_MOST_ENTRIES = 20_000


class _TooLarge(Exception):
    """More lies behind a link than is looked at."""


@dataclass
class _Budget:
    entries: int

    def spend(self, entries: int) -> None:
        self.entries -= entries
        if self.entries < 0:
            raise _TooLarge


def is_ignored_folder(name: str) -> bool:
    """Hidden, or made by tools."""
    return name.startswith(".") or name in ("__pycache__", "node_modules") or name.endswith(_METADATA)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, in a fixed order; links to folders are followed, but for those to a folder above.

    What lies above belongs to others, wherever the link to it is. Left out are what is hidden, virtual environments,
    what builds leave, and all that lies behind a link to too much.
    """
    yield from _files(folder, _above(folder), None, is_top=True)


def _above(folder: Path) -> frozenset[tuple[int, int]]:
    found = set()
    for parent in folder.resolve().parents:
        with contextlib.suppress(OSError):
            found.add(_identity(parent.stat()))
    return frozenset(found)


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _files(
    folder: Path, above: frozenset[tuple[int, int]], budget: _Budget | None, *, is_top: bool = False
) -> Iterator[Path]:
    try:
        state = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    here = _identity(state)
    names = {entry.name for entry in entries}
    if here in above or (_VENV_FILE in names and not is_top):
        return
    if budget is not None:
        budget.spend(len(entries))
    is_package = not names.isdisjoint(PACKAGING_FILES)
    for entry in entries:
        path = folder / entry.name
        if not _is_folder(entry):
            yield path
        elif is_ignored_folder(entry.name) or (is_package and entry.name in _BUILT):
            continue
        elif entry.is_symlink() and budget is None:
            yield from _behind_link(path, above | {here})
        else:
            yield from _files(path, above | {here}, budget)


def _behind_link(path: Path, above: frozenset[tuple[int, int]]) -> list[Path]:
    try:
        return list(_files(path, above, _Budget(_MOST_ENTRIES)))
    except _TooLarge:
        return []


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
