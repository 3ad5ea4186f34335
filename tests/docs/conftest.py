"""A folder that looks like a fresh clone, with the environment that `./run.sh` started in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from documents import ROOT, Block
from environments import until
from servers.processes import free_port

#: Setting up the runners' virtual environments takes most of it.
_START_SECONDS = 400.0
_COMMAND_SECONDS = 180.0
#: So old must discovery be until a misspelt algorithm cannot be one whose runner has yet to come.
_LEASE_SECONDS = 10
#: Addresses as the pages have them, by the setting that moves them.
_PORTS = {"GATEWAY_PORT": 8000, "DISCOVERY_PORT": 8010, "RUNNER_PORTS_START": 8101}


@dataclass
class Clone:
    """Commands run here as a reader would run them, but for the ports."""

    folder: Path
    ports: dict[str, int]
    log_file: Path
    where: Path = field(init=False)

    def __post_init__(self) -> None:
        self.where = self.folder

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.ports['GATEWAY_PORT']}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
        return kept | {
            "PATH": f"{self.folder / '.venv' / 'bin'}:{os.environ['PATH']}",
            "GATEWAY_URL": self.gateway,
            "COLUMNS": "200",
            "LEASE_SECONDS": str(_LEASE_SECONDS),
            **{name: str(port) for name, port in self.ports.items()},
        }

    def log(self) -> str:
        """What the terminal of `./run.sh` shows."""
        return self._as_written(self.log_file.read_text(encoding="utf-8"))

    def run(self, command: str) -> tuple[int, str]:
        """Exit code and output of one command line."""
        done = subprocess.run(
            ["bash", "-c", self._as_run(command)],
            cwd=self.where,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_SECONDS,
        )
        return done.returncode, self._as_written(done.stdout.decode())

    def write(self, block: Block) -> None:
        """Saves a file that a page shows, or changes it as the page says."""
        path = self.folder / block.file
        path.parent.mkdir(exist_ok=True)
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(self._as_run(block.written_into(present)), encoding="utf-8")

    def _as_run(self, text: str) -> str:
        """With the ports of this environment."""
        for name, port in _PORTS.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.ports[name]}")
        return text

    def _as_written(self, text: str) -> str:
        """With the ports of the pages."""
        for name, port in _PORTS.items():
            text = text.replace(f"127.0.0.1:{self.ports[name]}", f"127.0.0.1:{port}")
        return text


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """`./run.sh` runs in it, and its samples have been through the queue."""
    folder = tmp_path_factory.mktemp("clone")
    _copy(folder)
    made = Clone(folder, {name: free_port() for name in _PORTS}, folder.with_name(f"{folder.name}.log"))
    with made.log_file.open("wb") as log:
        process = subprocess.Popen(["./run.sh"], cwd=folder, env=made.environment, stdout=log, stderr=log)

    def is_up() -> bool:
        assert process.poll() is None, made.log()
        return "everything goes on running" in made.log()

    def is_sure() -> bool:
        listed = requests.get(f"http://127.0.0.1:{made.ports['GATEWAY_PORT']}/algorithms", timeout=5)
        return bool(listed.json()["complete"])

    try:
        until(is_up, "the environment runs", _START_SECONDS)
        until(is_sure, "discovery has been up for a lease", _START_SECONDS)
        yield made
    finally:
        process.terminate()
        process.wait(60)


def _copy(folder: Path) -> None:
    """What a clone has and the pages use. It is set up already: its packages are those of this Python."""
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
    shutil.copytree(ROOT / "runners", folder / "runners", ignore=ignored)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignored)
    shutil.copy(ROOT / "run.sh", folder)
    (folder / ".ci").mkdir()
    (folder / ".ci" / "set-up").write_text("exit 0\n", encoding="utf-8")
    (folder / ".venv").symlink_to(sys.prefix)
