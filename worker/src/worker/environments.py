"""A virtual environment for each runner, made once and kept until its requirements change.

Runners without requirements share one: theirs would be equal, and a new runner starts at once instead of in a minute.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from worker.errors import EnvironmentBroken
from worker.output import Report
from worker.processes import run_to_end
from worker.runner_code import read_requirements
from worker.runners import RunnerFolder
from worker.settings import inherited_environment, without_servers
from worker.uv import constraints, find_uv, read_uv_variables

#: Written last. A folder without it was never finished, and is made again.
COMPLETE = "complete"
#: pip downloads and compiles; more at a time only makes each slower.
AT_THE_SAME_TIME = 4
#: -I: neither the current folder nor PYTHONPATH shadows what pip imports.
_PIP = ("-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")
_PLAIN_OPTION = re.compile(r"(-r|-c|-e|--requirement|--constraint|--editable)\b")
_TAIL_LINES = 12
_DISTRIBUTION = "plugplay-runnerlib"
#: Beside runnerlib's folder: what it needs, and what tests need.
_LOCKS = ("requirements.lock", "requirements-dev.lock")
#: What uv says of a file that is not the one of a lock; pip, which would not look, is not asked then.
_MISMATCH = "Hash mismatch"
#: What an installer adds to the `.dist-info` of a wheel, or writes again.
_OF_INSTALLER = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})
#: How often the size of an environment that is being made is shown.
SIZE_SECONDS = 2.0
_MEGABYTE = 1_000_000
#: In the environment's own folder: the system's folder for temporary files may be too small for what pip unpacks. (uv
#: unpacks in its cache.)
_TEMPORARY = "tmp"
#: Name of the environment of runners without requirements; no runner's name begins with a dot.
_SHARED = ".shared"
#: Fails if a package that runnerlib needs is now installed in a version that it cannot work with.
_CHECK = """
import sys
from importlib import metadata
from pip._vendor.packaging.requirements import Requirement
wrong = []
for text in metadata.requires("plugplay-runnerlib") or []:
    need = Requirement(text)
    if need.marker is None or need.marker.evaluate({"extra": ""}):
        have = metadata.version(need.name)
        if not need.specifier.contains(have, prereleases=True):
            wrong.append(f"runnerlib needs {need.name}{need.specifier}, the requirements bring {have}")
print("\\n".join(wrong))
sys.exit(bool(wrong))
"""


@dataclass(frozen=True, slots=True)
class RunnerlibSource:
    """What pip installs runnerlib from. Another `fingerprint` means another virtual environment."""

    #: empty: a wheel of the runnerlib that is installed here
    arguments: tuple[str, ...]
    fingerprint: str
    #: versions known to work; the author's own pins win over them
    constraints: tuple[Path, ...] = ()


def find_runnerlib() -> RunnerlibSource:
    """The checkout that this process has its runnerlib from, else its own files; never an index, by a bare name."""
    distribution = metadata.distribution(_DISTRIBUTION)
    direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = urlparse(direct.get("url", ""))
    folder = Path(unquote(url.path))
    if url.scheme != "file" or not folder.is_dir():
        return RunnerlibSource(arguments=(), fingerprint=distribution.read_text("RECORD") or distribution.version)
    editable = direct.get("dir_info", {}).get("editable", False)
    locks = tuple(folder.parent / name for name in _LOCKS)
    files = (file.read_bytes() if file.is_file() else b"-" for file in (folder / "pyproject.toml", *locks))
    return RunnerlibSource(
        arguments=("--editable", str(folder)) if editable else (str(folder),),
        fingerprint=hashlib.sha256(b"".join(files)).hexdigest() + str(folder),
        constraints=tuple(lock for lock in locks if lock.is_file()),
    )


def pack_installed(folder: Path) -> Path:
    """Makes a wheel of the runnerlib that is installed here, in `folder`, and returns its path."""
    distribution = metadata.distribution(_DISTRIBUTION)
    wheel = folder / f"{_DISTRIBUTION.replace('-', '_')}-{distribution.version}-py3-none-any.whl"
    info, record = "", ""
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in distribution.files or ():
            is_info = file.parts[0].endswith(".dist-info")
            info = file.parts[0] if is_info else info
            # Scripts lie outside, and are made anew from the entry points.
            if file.parts[0] == ".." or file.suffix == ".pyc" or (is_info and file.name in _OF_INSTALLER):
                continue
            content = file.read_binary()
            archive.writestr(file.as_posix(), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record += f"{file.as_posix()},sha256={digest},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return wheel


class EnvironmentBuilder:
    """Makes and finds environments under one folder; one process at a time may use that folder.

    An environment is made in its final place, since the scripts in it carry their own path; it counts only once its
    `complete` mark is written. `python` makes the environments; `extra` is installed besides the runner's own.
    """

    def __init__(
        self, folder: Path, source: RunnerlibSource, *, python: str = sys.executable, extra: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._source = source
        self._python = python
        self._extra = tuple(extra)
        self._turns = asyncio.Semaphore(AT_THE_SAME_TIME)
        self._locks: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    def path(self, runner: RunnerFolder) -> Path:
        """Where the runner's environment is or will be."""
        if not _has_requirements(runner):
            return self._path(_SHARED, "")
        found = read_requirements(runner.path, inherited_environment())
        included = [fact for fact in found.installed() if fact[0] != str(runner.requirements)]
        return self._path(runner.name, _text(runner.requirements), *(word for fact in included for word in fact))

    def _path(self, name: str, requirements: str, *included: str) -> Path:
        facts = [requirements, self._python, sys.version, self._source.fingerprint, *self._extra, *included]
        return self._folder / f"{name}-{hashlib.sha256(chr(0).join(facts).encode()).hexdigest()[:12]}"

    def is_complete(self, runner: RunnerFolder) -> bool:
        return (self.path(runner) / COMPLETE).exists()

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        """The Python of the runner's environment, made now if it isn't there. Raises EnvironmentBroken.

        `report` is called with each step.
        """
        # In threads: this may read whole packages.
        written = await asyncio.to_thread(_written, runner)
        folder = await asyncio.to_thread(self.path, runner)
        python = folder / "bin" / "python"
        async with self._locks[folder]:
            if (folder / COMPLETE).exists():
                return python
            async with self._turns:
                _remove(folder)
                (folder / _TEMPORARY).mkdir(parents=True)
                try:
                    async with with_size(folder, report) as tell:
                        await self._make(folder, python, runner, tell)
                    # Not `installed()`: some packages write into their own folder when they are built.
                    if await asyncio.to_thread(_written, runner) != written:
                        raise EnvironmentBroken(
                            f"{runner.requirements}, or what it refers to, was changed while it was being installed"
                        )
                    shutil.rmtree(folder / _TEMPORARY)
                    (folder / COMPLETE).touch()
                except BaseException:
                    _remove(folder)
                    raise
        return python

    async def _make(self, folder: Path, python: Path, runner: RunnerFolder, report: Report) -> None:
        report("making a virtual environment")
        variables = without_servers(inherited_environment()) | {"TMPDIR": str(folder / _TEMPORARY)}
        run = partial(_run, folder=runner.path, report=report)
        uv = await asyncio.to_thread(_uv, variables)

        async def run_either(uv_words: Sequence[str], otherwise: Sequence[str], why: str) -> None:
            """Runs uv, which takes seconds. Without it, or if it fails, pip, whose messages authors know."""
            if uv is not None:
                program, uv_environment = uv
                try:
                    return await run([program, "--no-config", *uv_words], environment=uv_environment, why=why)
                except (EnvironmentBroken, OSError) as error:
                    if _MISMATCH in str(error):
                        raise
                    report("uv cannot do it; trying again with pip")
            return await run(otherwise, environment=variables, why=why)

        async def install(words: Sequence[str], why: str, versions: Sequence[Path] = ()) -> None:
            uv_words = ("pip", "install", "--python", str(python), "--no-progress", "--color", "never", *words)
            by_uv = [*_constrained(versions), *([] if uv is None else constraints(uv[1]))]
            by_pip = _constrained(await asyncio.to_thread(_without_hashes, versions, folder / _TEMPORARY))
            await run_either((*uv_words, *by_uv), (str(python), *_PIP, *by_pip, *words), why)

        venv = ("venv", "--seed", "--allow-existing", "--python", self._python, str(folder))
        without_uv = (self._python, "-I", "-m", "venv", str(folder))
        await run_either(venv, without_uv, "the virtual environment could not be made")
        source = self._source.arguments or (str(await asyncio.to_thread(pack_installed, folder / _TEMPORARY)),)
        await install([*source, *self._extra], "runnerlib could not be installed", self._source.constraints)
        if _has_requirements(runner):
            # After runnerlib and without its constraints: an author's pins win.
            if uv is not None and not await asyncio.to_thread(_is_plain, runner):
                uv = None
            await install(["--requirement", str(runner.requirements)], f"{runner.requirements} could not be installed")
            # Installers do not mind when a pin of the author's breaks what was there before.
            why = f"{runner.requirements} does not fit with what runnerlib needs"
            await run([str(python), "-I", "-c", _CHECK], environment=variables, why=why)

    def remove_older(self, name: str, pythons: Collection[Path]) -> None:
        """Removes the environments of runner `name`, which can be gigabytes, except those of these Pythons.

        Also keeps the newest one that was made after all of these: its version was refused, and may come back mended.
        """
        keep = {python.parent.parent for python in pythons} | {self._path(_SHARED, "")}
        for kind in (name, _SHARED):
            length = len(self._path(kind, "").name)
            others = [f for f in self._folder.glob(f"{kind}-*") if f not in keep and len(f.name) == length]
            in_use = max((_made_at(python.parent.parent) for python in pythons), default=0)
            newest = max(others, key=_made_at, default=None)
            for folder in others:
                if folder != newest or kind == _SHARED or _made_at(folder) <= in_use:
                    _remove(folder)


def _constrained(files: Sequence[Path]) -> list[str]:
    return [word for file in files for word in ("--constraint", str(file))]


def _without_hashes(locks: Sequence[Path], folder: Path) -> list[Path]:
    """Copies in `folder` for pip, which asks for the hash of everything, ours too, as soon as a constraint has one.

    uv checks those that are there; where there is only pip, nobody does.
    """
    copies = []
    for lock in locks:
        pins = (line.partition(" \\")[0] for line in lock.read_text().splitlines() if line[:1] not in (" ", "#", ""))
        copies.append(folder / lock.name)
        copies[-1].write_text("".join(f"{pin}\n" for pin in pins))
    return copies


def _is_plain(runner: RunnerFolder) -> bool:
    """Whether uv reads the requirements as pip does: other options than these mean something else to it."""
    found = read_requirements(runner.path, inherited_environment())
    lines = (line.strip() for file in found.files for line in _text(file).splitlines())
    return not any((line.startswith("-") and not _PLAIN_OPTION.match(line)) or "--hash" in line for line in lines)


def _uv(variables: Mapping[str, str]) -> tuple[str, Mapping[str, str]] | None:
    """uv and its variables, with pip's configuration; None if there is no uv, or it cannot follow it."""
    program = find_uv()
    configuration = None if program is None else read_uv_variables(sys.executable, variables)
    if program is None or configuration is None:
        return None
    # Copies, compiled once: a package that changes its own files changes one environment, and processes start quickly.
    return str(program), {"UV_LINK_MODE": "copy", "UV_COMPILE_BYTECODE": "1", **variables, **configuration}


@contextlib.asynccontextmanager
async def with_size(folder: Path, report: Report, *, seconds: float = SIZE_SECONDS) -> AsyncIterator[Report]:
    """Yields a `report` that repeats the last step with the size of the folder, while something fills it."""
    last = ""

    def step(what: str) -> None:
        nonlocal last
        last = what
        report(what)

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            size = await asyncio.to_thread(bytes_in, folder)
            report(f"{size / _MEGABYTE:.0f} MB on disk: {last}")

    repeating = asyncio.create_task(repeat())
    try:
        yield step
    finally:
        repeating.cancel()
        await asyncio.wait([repeating])


def bytes_in(folder: Path) -> int:
    """The size of its files. Those that come and go meanwhile may count or not."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


async def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str], why: str, report: Report) -> None:
    """Runs one step in `folder`; its last lines go into the error."""
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def on_line(line: str) -> None:
        if line.strip():
            tail.append(line.rstrip())
            report(line.strip())

    if await run_to_end(command, on_line, folder=folder, environment=environment):
        raise EnvironmentBroken("\n".join([f"{why}:", *(f"    {line}" for line in tail)]))


def _written(runner: RunnerFolder) -> dict[str, str]:
    return dict(read_requirements(runner.path, inherited_environment()).written())


def _text(file: Path) -> str:
    """The text in any encoding: pip knows more of them (PowerShell writes UTF-16), and says what it cannot read."""
    try:
        if file.exists() and not file.is_file():
            return ""
        return file.read_text(encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise EnvironmentBroken(f"{file} cannot be read: {error.strerror}") from None


def _has_requirements(runner: RunnerFolder) -> bool:
    return any(line.partition("#")[0].strip() for line in _text(runner.requirements).splitlines())


def _made_at(folder: Path) -> int:
    """0 if it was never finished."""
    try:
        return (folder / COMPLETE).stat().st_mtime_ns
    except OSError:
        return 0


def _remove(folder: Path) -> None:
    """Removes the mark first: what is half removed must not count."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
