"""A runner's code: which of its files that is, its digest, and a copy that later edits do not reach.

An environment that follows edits runs every version from a copy, as a container would. A worker process that starts
anew (after a kill, a timeout, so many tasks) then loads what the others of its runner run, and not what is being typed.
"""

import hashlib
import os
import shutil
from pathlib import Path

from worker.runners import REQUIREMENTS_FILE

_CACHE = "__pycache__"
#: What makes a folder a virtual environment.
_VENV_FILE = "pyvenv.cfg"
#: Editing the copy that a traceback names would change nothing: so it cannot be saved.
_READ_ONLY = 0o444


def is_code(name: str) -> bool:
    """Whether a change of such a file is a change of the runner. Its tests are not part of it."""
    if name == REQUIREMENTS_FILE:
        return True
    return name.endswith(".py") and not name.startswith((".", "test_")) and name != "conftest.py"


def is_ignored_folder(name: str) -> bool:
    return name.startswith(".") or name in (_CACHE, "node_modules")


def code_files(folder: Path) -> list[Path]:
    """Relative to `folder`, sorted. Virtual environments and what is hidden do not count."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if not is_ignored_folder(name) and not Path(place, name, _VENV_FILE).exists()
        ]
        found += [Path(place, name).relative_to(folder) for name in files if is_code(name)]
    return sorted(found)


def digest(folder: Path) -> str:
    """Equal for equal code: times of files do not matter."""
    content = hashlib.sha256()
    for file in code_files(folder):
        try:
            text = (folder / file).read_bytes()
        except OSError as error:
            # Gone since it was listed, or not ours to read: another version than the one with it.
            text = type(error).__name__.encode()
        content.update(f"{file}\0{len(text)}\0".encode() + text)
    return content.hexdigest()


def copy_code(folder: Path, target: Path) -> str:
    """Copies the code and links everything else (models may be gigabytes); the digest of what was copied.

    Raises OSError when a file vanishes meanwhile: the next look sees the newer state.
    """
    files = set(code_files(folder))
    folders = {Path()} | {parent for file in files for parent in file.parents}
    for place in sorted(folders):
        (target / place).mkdir(parents=True)
        for name in os.listdir(folder / place):
            one = place / name
            if one in files:
                shutil.copyfile(folder / one, target / one)
                (target / one).chmod(_READ_ONLY)
            elif one not in folders and name != _CACHE:
                (target / one).symlink_to(folder / one)
    return digest(target)
