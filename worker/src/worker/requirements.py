"""What a runner requires, wherever it stands: requirements.txt, the files that it includes, local packages it names.

Read as pip reads it, as far as files of this machine are concerned; what else is written there is left to pip.
"""

import codecs
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

from worker.runners import REQUIREMENTS_FILE
from worker.tree import PACKAGING_FILES, files_below

#: Files that include each other without an end; pip would stop with an error.
_MOST_FILES = 200
#: A larger file counts by its size and time instead of its content.
_MOST_BYTES = 4 * 1024 * 1024
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_COMMENT = re.compile(r"(^|\s+)#.*$")
#: `package[extra] @ file:///…`, and what may follow an address or a path: extras, a marker, options.
_NAMED = re.compile(r"^[A-Za-z0-9._-]+\s*(\[[^\]]*\])?\s*@\s*")
_AFTER = re.compile(r"(\[[^\]/]*\])?\s*(;.*|\s--.*)?$")


@dataclass
class Requirements:
    """Everything on this machine that decides what is installed. Paths are absolute; each counts once."""

    #: requirements.txt and what it includes, also files that are not there
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
        """(name, digest) of what installing never changes; a package's own build may change what lies in its folder."""
        for file in self.files:
            yield str(file), digest_of(file)
        for archive in self.archives:
            yield str(archive), _size_and_time(archive)

    def installed(self) -> Iterator[tuple[str, str]]:
        """(name, digest) of all that an environment is made from: other digests, another environment."""
        yield from self.written()
        for folder in self.folders:
            yield from ((str(file), digest_of(file)) for file in files_below(folder))
        for folder in [*self.editable, *self.around]:
            yield from ((str(folder / name), digest_of(folder / name)) for name in PACKAGING_FILES)
        for folder in self.around:
            yield from ((str(file), digest_of(file)) for file in files_below(folder) if self._is_copied(file, folder))

    def _is_copied(self, file: Path, folder: Path) -> bool:
        """Whether the runner gets this module as it was when it was installed."""
        is_found_in_place = file.is_relative_to(self.runners) and not file.is_relative_to(folder / "src")
        return file.suffix == ".py" and not is_found_in_place

    def followed(self) -> Iterator[tuple[str, str]]:
        """What :meth:`installed` tells, and the modules of packages that are used where they lie."""
        yield from self.installed()
        for folder in self.editable:
            for file in files_below(folder):
                if file.suffix == ".py":
                    yield str(file), digest_of(file)


def read_requirements(folder: Path, variables: Mapping[str, str]) -> Requirements:
    """Of the runner in `folder`; what cannot be read is left to pip. `variables`: for `${NAME}`."""
    found = Requirements(runners=folder.parent)
    _read(folder / REQUIREMENTS_FILE, folder, variables, found)
    return found


def digest_of(file: Path) -> str:
    """Of its content, or of why it has none."""
    try:
        state = file.stat()
        # Reading a pipe waits for somebody who writes.
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
            return _size_and_time(file)
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        # Gone since it was listed, or not ours to read: another version than the one with it.
        return type(error).__name__


def _size_and_time(file: Path) -> str:
    try:
        state = file.stat()
    except OSError as error:
        return type(error).__name__
    return f"{state.st_size} {state.st_mtime_ns}"


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
        if place is None:
            continue
        if option in ("-e", "--editable"):
            _add(found.editable, place)
        elif not option and _is_path(value) and folder.is_relative_to(place):
            _add(found.around, place)
        elif option in ("-f", "--find-links") or (not option and place.is_dir() and _is_path(value)):
            _add(found.folders, place)
        elif not option and place.name.endswith(_ARCHIVES):
            _add(found.archives, place)


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
    """Option and value; no option for a requirement."""
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
    """The path on this machine that `value` names, as a path or as an address; None when it names another place."""
    value = value.strip()
    if value.startswith("file:"):
        return Path(unquote(urlparse(value).path))
    if not value or re.match(r"[a-z+]+:", value):
        return None
    return Path(os.path.normpath(folder / value))


def _is_path(value: str) -> bool:
    """A name alone is looked for in an index, though a folder of that name may lie here."""
    return value.startswith((".", "file:")) or "/" in value or " @ " in value


def _add(places: list[Path], place: Path) -> None:
    if place not in places:
        places.append(place)
