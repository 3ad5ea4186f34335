"""Which files make a version of a runner: its code, what it requires, its variables; their digests, and a copy to run.

An environment that follows edits runs every version from a copy, as a container would. A worker process that is started
later (after a kill, a timeout, so many tasks) then loads what the others of its runner run, not what is being typed.
"""

import codecs
import contextlib
import hashlib
import os
import re
import shlex
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

from worker.runners import ENVIRONMENT_FILE, REQUIREMENTS_FILE
from worker.settings import inherited_environment

#: What makes a folder a virtual environment.
_VENV_FILE = "pyvenv.cfg"
#: What decides how a package is built; the folders beside it hold what building leaves, as does .egg-info anywhere.
PACKAGING_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_BUILT, _METADATA = ("build", "dist"), ".egg-info"
#: At most so many files and folders are read behind one link; what is larger is data.
_MOST_ENTRIES = 20_000
#: Editing the copy that a traceback names would change nothing: so it cannot be saved.
_READ_ONLY = 0o444
#: Before the names of what requirements.txt refers to.
REQUIRED = "required "
#: This many folders above the runner's own have their entries linked around the copy, if there are not too many.
_LEVELS, _MOST_NEIGHBOURS = 2, 2000
#: Files may include each other endlessly; pip would stop with an error.
_MOST_FILES = 200
#: A larger file counts by its size and time instead of its content.
_MOST_BYTES = 4 * 1024 * 1024
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_COMMENT = re.compile(r"(^|\s+)#.*$")
#: `package[extra] @ file:///…`, and what may follow an address or a path: extras, a marker, options.
_NAMED = re.compile(r"^[A-Za-z0-9._-]+\s*(\[[^\]]*\])?\s*@\s*")
_AFTER = re.compile(r"(\[[^\]/]*\])?\s*(;.*|\s--.*)?$")


def is_code(name: str) -> bool:
    """Whether a change of a file with this name is a change of the runner. Tests are not part of it."""
    if name == REQUIREMENTS_FILE:
        return True
    return name.endswith(".py") and not name.startswith((".", "test_")) and name != "conftest.py"


def code_files(folder: Path) -> list[Path]:
    """Paths relative to `folder`, sorted; links are followed. Virtual environments and hidden files do not count."""
    return sorted(file.relative_to(folder) for file in files_below(folder) if is_code(file.name))


def code_digests(folder: Path, copy: Path | None = None, files: Collection[Path] | None = None) -> dict[str, str]:
    """Name → digest of everything that makes a version of the runner in `folder`.

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
    """One digest of all of them. Equal code has an equal version, since times of files do not matter."""
    content = "".join(f"{name}\0{digest}\0" for name, digest in sorted(digests.items()))
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def digest_of(file: Path, most_bytes: int = _MOST_BYTES) -> str:
    """Of the file's content; its size and time if it is larger; or why it cannot be read."""
    try:
        state = file.stat()
        # Reading a pipe waits for somebody who writes.
        if not stat.S_ISREG(state.st_mode) or state.st_size > most_bytes:
            return f"{state.st_size} {state.st_mtime_ns}"
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        # Gone since it was listed, or not readable: another version than the one with it.
        return type(error).__name__


def copy_code(folder: Path, target: Path) -> dict[str, str]:
    """Copies the code, links everything else (models may be gigabytes), returns the digests of what was copied.

    Raises OSError if a file vanishes meanwhile: the next look sees the newer state.
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
    """Links what lies beside and above `folder` into `target`; returns where in it the copy of `folder` goes.

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


# Requirements are read as pip reads them, as far as files of this machine are concerned; pip judges the rest.


@dataclass
class Requirements:
    """Everything on this machine that decides what is installed. Paths are absolute and unique."""

    #: requirements.txt and what it includes, also files that do not exist
    files: list[Path] = field(default_factory=list)
    #: wheels and other archives
    archives: list[Path] = field(default_factory=list)
    #: folders of packages that are built and installed, and of wheels to choose from
    folders: list[Path] = field(default_factory=list)
    #: folders of packages that are used where they lie
    editable: list[Path] = field(default_factory=list)
    #: folders of packages that are built and installed although the runner itself lies in them
    around: list[Path] = field(default_factory=list)
    #: the folder of runners, whose code is not taken from what is installed
    runners: Path = field(default_factory=Path)

    def written(self) -> Iterator[tuple[str, str]]:
        """(name, digest) of what installing never changes; building a package may change files in its folder."""
        yield from _digests(self.files)
        yield from ((str(archive), digest_of(archive, most_bytes=0)) for archive in self.archives)

    def installed(self) -> Iterator[tuple[str, str]]:
        """(name, digest) of all that a virtual environment is made from: other digests, another environment."""
        yield from self.written()
        for folder in self.folders:
            yield from _digests(files_below(folder))
        for folder in [*self.editable, *self.around]:
            yield from _digests(folder / name for name in PACKAGING_FILES)
        for folder in self.around:
            yield from _digests(file for file in files_below(folder) if self._is_copied(file, folder))

    def _is_copied(self, file: Path, folder: Path) -> bool:
        """Whether the runner gets this module as it was when it was installed."""
        is_found_in_place = file.is_relative_to(self.runners) and not file.is_relative_to(folder / "src")
        return file.suffix == ".py" and not is_found_in_place

    def followed(self) -> Iterator[tuple[str, str]]:
        """The same as :meth:`installed`, and the modules of packages that are used where they lie."""
        yield from self.installed()
        for folder in self.editable:
            yield from _digests(file for file in files_below(folder) if file.suffix == ".py")


def _digests(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    return ((str(file), digest_of(file)) for file in files)


def read_requirements(folder: Path, variables: Mapping[str, str]) -> Requirements:
    """Of the runner in `folder`. `variables` replace `${NAME}`."""
    found = Requirements(runners=folder.parent)
    _read(folder / REQUIREMENTS_FILE, folder, variables, found)
    return found


def _read(file: Path, folder: Path, variables: Mapping[str, str], found: Requirements) -> None:
    if file in found.files or len(found.files) >= _MOST_FILES:
        return
    found.files.append(file)
    for line in _lines(file, variables):
        option, value = _split(line)
        if option in ("-r", "--requirement", "-c", "--constraint"):
            included = _local(value, file.parent)
            if included is not None:
                _read(included, folder, variables, found)
            continue
        # pip runs in the runner's folder, and takes paths of packages from there.
        place = _local(_AFTER.sub("", _NAMED.sub("", value)), folder)
        if place is not None:
            kind = _kind(option, value, place, folder, found)
            if kind is not None and place not in kind:
                kind.append(place)


def _kind(option: str, value: str, place: Path, folder: Path, found: Requirements) -> list[Path] | None:
    """The list that `place` belongs to."""
    # A name alone is looked up in an index, though a folder of that name may exist.
    is_path = value.startswith((".", "file:")) or "/" in value or " @ " in value
    if option in ("-e", "--editable"):
        return found.editable
    if not option and is_path and folder.is_relative_to(place):
        return found.around
    if option in ("-f", "--find-links") or (not option and place.is_dir() and is_path):
        return found.folders
    return found.archives if not option and place.name.endswith(_ARCHIVES) else None


def _lines(file: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """Whole lines, without comments, with variables filled in."""
    try:
        content = file.read_bytes() if file.is_file() else b""
    except OSError:
        return
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if wide else "utf-8-sig", "replace")
    for line in re.sub(r"\\\r?\n", "", text).splitlines():
        bare = _COMMENT.sub("", line).strip()
        if bare:
            yield _VARIABLE.sub(lambda match: variables.get(match[1]) or match[0], bare)


def _split(line: str) -> tuple[str, str]:
    """Option and value; the option of a requirement is empty."""
    if not line.startswith("-"):
        return "", line
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    option, equals, value = words[0].partition("=")
    if not option.startswith("--") and len(option) > len("-r"):
        return option[:2], words[0][2:]
    return option, value if equals else " ".join(words[1:])


def _local(value: str, folder: Path) -> Path | None:
    """The path on this machine that `value` names, as a path or a URL; None if it names another place."""
    value = value.strip()
    if value.startswith("file:"):
        return Path(unquote(urlparse(value).path))
    if not value or re.match(r"[a-z+]+:", value):
        return None
    return Path(os.path.normpath(folder / value))


# The files below a folder, also through symbolic links.


class _TooLarge(Exception):
    """More lies behind a link than is read."""


def is_ignored_folder(name: str) -> bool:
    """Hidden, or made by tools."""
    return name.startswith(".") or name in ("__pycache__", "node_modules") or name.endswith(_METADATA)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, in a fixed order. Follows links to folders, except to those above it, so it ends.

    Leaves out what is hidden, virtual environments, what builds leave, and all that lies behind a link to too much.
    """
    above = set()
    for parent in folder.resolve().parents:
        with contextlib.suppress(OSError):
            above.add(identity(parent))
    yield from _files(folder, frozenset(above), None, is_top=True)


def identity(folder: Path) -> tuple[int, int]:
    """The same for two paths that lead to the same folder. Raises OSError."""
    state = folder.stat()
    return state.st_dev, state.st_ino


def _files(
    folder: Path, above: frozenset[tuple[int, int]], budget: list[int] | None, *, is_top: bool = False
) -> Iterator[Path]:
    """`budget`: how many more entries are read behind the same link. Raises _TooLarge beyond that."""
    try:
        here = identity(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if here in above or (_VENV_FILE in names and not is_top):
        return
    if budget is not None:
        budget[0] -= len(entries)
        if budget[0] < 0:
            raise _TooLarge
    is_package = not names.isdisjoint(PACKAGING_FILES)
    for entry in entries:
        path = folder / entry.name
        if not _is_folder(entry):
            yield path
        elif is_ignored_folder(entry.name) or (is_package and entry.name in _BUILT):
            continue
        elif entry.is_symlink() and budget is None:
            with contextlib.suppress(_TooLarge):
                yield from list(_files(path, above | {here}, [_MOST_ENTRIES]))
        else:
            yield from _files(path, above | {here}, budget)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
