"""What is installed: the very files that were tested, ours from here alone, and a list of it for each image."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import tomllib
from documents import ROOT

LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]
SBOM = ROOT / "deploy" / "sbom.py"
OURS = ("runnerlib", "runner-discovery", "taskqueue", "controller", "producer", "worker")
_OUR_NAME = re.compile(rf"(?:plugplay[-_.])?(?:{'|'.join(OURS)}|runner_discovery)(?:\[.*\])?(?:[=<>!~].*)?")
#: `pip install`, and the words of the same in a list of strings, up to what ends the command.
_INSTALL = re.compile(r"""\bpip["',\s]+install\b((?:\\\n|[^\n;|&`])*)""")
_PASSED_OVER = {".git", ".venv", ".plugplay", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache"}


def _texts() -> Iterator[tuple[Path, str]]:
    """What is in the tree but this file."""
    for place, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in _PASSED_OVER and not name.endswith(".egg-info")]
        for path in (Path(place, name) for name in names):
            if path != Path(__file__) and path.is_file() and path.stat().st_size < 1_000_000:
                yield path, path.read_text(encoding="utf-8", errors="replace")


def _needs(folder: str, extras: list[str]) -> set[str]:
    """Folders of ours that one of our packages needs, itself included."""
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [need for extra in extras for need in project["optional-dependencies"][extra]]
    found = {folder}
    for need in wanted:
        if match := re.match(r"plugplay-([a-z-]+)(?:\[([a-z,]+)\])?", need):
            found |= _needs(match[1], (match[2] or "").split(",") if match[2] else [])
    return found


def taken_from_an_index(command: str) -> set[str]:
    """What of ours the words after `pip install` would take from an index."""
    words = [word for word in re.split(r"""[\s"'(),\\]+""", re.sub(r"\],|\]\s|\]$", "] ", command)) if word]
    named = {word for word in words if _OUR_NAME.fullmatch(word)}
    folders = [match for word in words if (match := re.fullmatch(r"\./([a-z-]+)(?:\[([a-z]+)\])?", word))]
    if "--no-deps" in words:
        return named
    needed = {need for match in folders for need in _needs(match[1], [match[2]] if match[2] else [])}
    return named | (needed - {match[1] for match in folders})


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (" requests plugplay-runnerlib", {"plugplay-runnerlib"}),
        (" -q 'producer[async]>=0.2'", {"producer[async]>=0.2"}),
        ('", "runner_discovery"]', {"runner_discovery"}),
        (" ./producer", set()),
        (" './producer[broker]'", {"runnerlib", "taskqueue"}),
        (" ./runnerlib ./taskqueue './producer[broker]'", set()),
        (" --no-deps ./controller", set()),
    ],
)
def test_a_bare_name_and_a_need_that_is_not_given_would_come_from_an_index(command: str, taken: set[str]) -> None:
    assert taken_from_an_index(command) == taken


def test_nothing_of_ours_is_installed_from_an_index() -> None:
    commands = [(path, match[1]) for path, text in _texts() for match in _INSTALL.finditer(text)]
    assert len(commands) > 20
    assert {(str(path), name) for path, command in commands for name in taken_from_an_index(command)} == set()
    required = [path for path in ROOT.glob("r*/**/requirements*.txt") if not _PASSED_OVER & set(path.parts)]
    assert len(required) >= 2
    for path in required:
        assert not [line for line in path.read_text().splitlines() if _OUR_NAME.fullmatch(line.strip())], path
    sources = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["sources"]
    assert sources == {f"plugplay-{name}": {"workspace": True} for name in OURS}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_version_of_a_lock_has_the_hashes_of_its_files(lock: Path) -> None:
    entries = re.findall(
        r"^([^\s#].*?)(?: \\)?\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)*)", lock.read_text(), re.M
    )
    assert len(entries) > 20
    assert [line for line, hashes in entries if "==" not in line or not hashes] == []


def test_set_up_refuses_a_file_that_is_not_the_locked_one(tmp_path: Path) -> None:
    for name in (".ci/set-up", "worker/src/worker/uv.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    wheel = _wheel(tmp_path / "needle-1.0-py3-none-any.whl")
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PYTHON": sys.executable}
    said = []
    for digest in ("0" * 64, hashlib.sha256(wheel.read_bytes()).hexdigest()):
        (tmp_path / "requirements.lock").write_text(f"needle==1.0 \\\n    --hash=sha256:{digest}\n")
        command = ["bash", str(tmp_path / ".ci" / "set-up")]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=110)
        said.append(done.stdout + done.stderr)
    # The second time there are no packages of ours to go on with.
    assert ["DO NOT MATCH THE HASHES" in each for each in said] == [True, False], said
    assert ["Installing the packages" in each for each in said] == [False, True], said


def _wheel(path: Path) -> Path:
    """An empty package."""
    info = f"{path.name.removesuffix('-py3-none-any.whl')}.dist-info"
    files = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: needle\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, f"{info}/RECORD": "".join(f"{name},,\n" for name in files)}.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "file", ["deploy/Dockerfile", *(str(p.relative_to(ROOT)) for p in ROOT.glob("runners/*/Dockerfile"))]
)
def test_the_image_that_another_is_built_on_can_be_named_by_its_digest(file: str) -> None:
    text = (ROOT / file).read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M)) | {"scratch", "${LIBRARY}"}
    bases = set(re.findall(r"^FROM (\S+)", text, re.M)) - stages
    assert len(bases) == 1
    assert re.search(rf"^ARG {bases.pop().strip('${}')}=\S+", text, re.M)


def _sbom(folder: Path) -> dict[str, str]:
    """purl → name and version."""
    told = json.loads(subprocess.check_output([sys.executable, SBOM, folder], text=True))
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    return {one["purl"]: f"{one['name']} {one['version']}" for one in told["components"]}


def test_sbom_of_a_virtual_environment_lists_what_is_installed_in_it() -> None:
    found = _sbom(Path(sys.prefix))
    names = {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in metadata.distributions()}
    assert names["fastapi"] in found[f"pkg:pypi/fastapi@{names['fastapi']}"]
    assert {f"pkg:pypi/{name}@{version}" for name, version in names.items()} <= found.keys()


def test_sbom_lists_packages_of_the_system_that_are_installed(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('PRETTY_NAME="Debian"\nID=debian\n')
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: tini\nStatus: install ok installed\nArchitecture: amd64\nVersion: 0.19.0-1+b3\nDescription: x\n y\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    assert _sbom(tmp_path) == {"pkg:deb/debian/tini@0.19.0-1%2Bb3?arch=amd64": "tini 0.19.0-1+b3"}
    again = [subprocess.check_output([sys.executable, SBOM, tmp_path]) for _ in range(2)]
    assert again[0] == again[1]


def test_sbom_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    command = [sys.executable, SBOM, str(tmp_path / "nothing")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is no folder, and Docker" in done.stderr
