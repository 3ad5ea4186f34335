"""A runner's code: which of its files that is, its digest, and a copy that later edits do not reach.

An environment that follows edits runs every version from a copy, as a container would. A worker process that starts
anew (after a kill, a timeout, so many tasks) then loads what the others of its runner run, and not what is being typed.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from worker.requirements import digest_of, read_requirements
from worker.runners import ENVIRONMENT_FILE, REQUIREMENTS_FILE
from worker.settings import inherited_environment
from worker.tree import files_below

#: Editing the copy that a traceback names would change nothing: so it cannot be saved.
_READ_ONLY = 0o444
#: Before the names of what requirements.txt refers to.
REQUIRED = "required "
#: So many folders above the runner's own have their entries around the copy, if those are no more than that.
_LEVELS = 2
_MOST_NEIGHBOURS = 2000


def is_code(name: str) -> bool:
    """Whether a change of such a file is a change of the runner. Its tests are not part of it."""
    if name == REQUIREMENTS_FILE:
        return True
    return name.endswith(".py") and not name.startswith((".", "test_")) and name != "conftest.py"


def code_files(folder: Path) -> list[Path]:
    """Relative to `folder`, sorted, also behind links. Virtual environments and what is hidden do not count."""
    return sorted(file.relative_to(folder) for file in files_below(folder) if is_code(file.name))


def code_digests(folder: Path, copy: Path | None = None, files: Collection[Path] | None = None) -> dict[str, str]:
    """Name → digest of all that makes a version of the runner in `folder`: code, what it requires, its variables.

    With a `copy`, the code is those `files` of it: a link in it that leads back to the folder is no cycle there.
    """
    place = copy or folder
    found = {str(file): digest_of(place / file) for file in (code_files(place) if files is None else files)}
    variables = folder / ENVIRONMENT_FILE
    with contextlib.suppress(OSError):
        # Who may read it decides whether it is used.
        found[ENVIRONMENT_FILE] = f"{variables.stat().st_mode:o} {digest_of(variables)}"
    for name, digest in read_requirements(folder, inherited_environment()).followed():
        if name != str(folder / REQUIREMENTS_FILE):
            found[f"{REQUIRED}{os.path.relpath(name, folder)}"] = digest
    return found


def version_of(digests: Mapping[str, str]) -> str:
    """One digest of all of them: equal for equal code, since times of files do not matter."""
    content = "".join(f"{name}\0{digest}\0" for name, digest in sorted(digests.items()))
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def copy_code(folder: Path, target: Path) -> dict[str, str]:
    """Copies the code and links everything else (models may be gigabytes); the digests of what was copied.

    Raises OSError when a file vanishes meanwhile: the next look sees the newer state.
    """
    # A link to the folder may lead elsewhere tomorrow; this version's data stay where they are.
    place = folder.resolve()
    files = set(code_files(place))
    folders = {Path()} | {parent for file in files for parent in file.parents}
    for inner in sorted(folders):
        (target / inner).mkdir(parents=True)
        for name in os.listdir(place / inner):
            one = inner / name
            if one in files:
                shutil.copyfile(place / one, target / one)
                (target / one).chmod(_READ_ONLY)
            elif one not in folders and name != "__pycache__":
                (target / one).symlink_to(place / one)
    return code_digests(folder, target, files)


def place_among_neighbours(folder: Path, target: Path) -> Path:
    """Where in `target` the copy of `folder` goes: what lies beside it and above it is found from there, by links.

    So `Path(__file__).parent.parent / "common"` leads to the same place from the copy.
    """
    place = folder.resolve()
    levels = [above for above in place.parents[:_LEVELS] if above.name]
    inner = target
    for above, child in zip(reversed(levels), [*reversed(levels), place][1:], strict=True):
        inner /= above.name
        inner.mkdir(parents=True)
        neighbours = [entry for entry in os.scandir(above) if _is_neighbour(entry, child, target)]
        if len(neighbours) <= _MOST_NEIGHBOURS:
            for entry in neighbours:
                (inner / entry.name).symlink_to(entry.path)
    return inner / place.name


def _is_neighbour(entry: "os.DirEntry[str]", child: Path, target: Path) -> bool:
    """Hidden folders belong to tools, and the data folder must not lead into itself."""
    if entry.name == child.name or target.is_relative_to(entry.path):
        return False
    return not (entry.name.startswith(".") and entry.is_dir())
