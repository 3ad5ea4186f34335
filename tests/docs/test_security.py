"""The commands and programs of docs/security.md and docs/limits.md, in an environment with tokens."""

import base64
import hmac
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from documents import ROOT, Block, blocks, commands, keeps_promise
from environments import Environment, until
from servers.fixtures import missing

from runnerlib.contract.identity import RunnerKeys, run_token_of

PAGE = ROOT / "docs" / "security.md"
LIMITS_PAGE = ROOT / "docs" / "limits.md"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator["Reader"]:
    """The page has been followed up to its first token, and the environment was started with that."""
    reader = Reader(tmp_path)
    reader.run(BLOCKS[0].text)
    token = tmp_path / "secrets" / "admin-token"
    environment = Environment(tmp_path, core_settings={"ADMIN_TOKEN_FILE": str(token)})
    runner = environment.runner("text", RUNNER_ADAPTER=str(ROOT / "runners" / "text" / "runner_adapter.py"))
    reader.gateway = environment.core.url
    try:
        for service in (environment.discovery, environment.core, runner):
            service.start(ready=False)
        for service in (environment.discovery, environment.core, runner):
            service.wait_ready()
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        algorithms = f"{environment.core.url}/algorithms"
        until(lambda: "upper" in requests.get(algorithms, headers=headers, timeout=5).text, "upper is known")
        yield reader
    finally:
        environment.stop()


class Reader:
    """Runs what the page shows, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway = ""

    def run(self, script: str, **variables: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", self.placed(script)],
            cwd=self.folder,
            env={**kept, "PATH": path, "GATEWAY_URL": self.gateway, "COLUMNS": "200", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout

    def placed(self, text: str) -> str:
        return text.replace("http://127.0.0.1:8000", self.gateway)


BLOCKS = [block for block in blocks(PAGE) if "tests/docs/test_security.py" in block.not_run]
LIMITS = [block for block in blocks(LIMITS_PAGE) if "tests/docs/test_security.py" in block.not_run]


def test_page_does_what_it_says(followed: Reader) -> None:
    admin = {"PRODUCER_TOKEN_FILE": "secrets/admin-token"}
    assert [block.language for block in BLOCKS] == ["sh", "sh", "console", "python", "js", "console"]
    for name in ("admin-token",):
        assert (followed.folder / "secrets" / name).stat().st_mode & 0o077 == 0
    listed = followed.run("set -e\n" + BLOCKS[1].text)
    assert "billing" in listed and "on-call" in listed, listed
    assert (followed.folder / "secrets" / "billing-token").stat().st_mode & 0o077 == 0
    limited = followed.run("set -e\n" + LIMITS[0].text, **admin)
    assert "10/s 100 at once 1000000 B/s 5000 waiting" in limited, limited
    _keeps(followed, BLOCKS[2], admin)
    assert _program(followed, BLOCKS[3], sys.executable) == "PYTHON\n"
    if shutil.which("node") is None:
        missing("Node is not installed (apt-get install nodejs)")
    assert _program(followed, BLOCKS[4], "node") == "NODE\n"
    _keeps(followed, BLOCKS[5], admin)


def test_protocol_tells_enough_to_make_tokens_in_another_language() -> None:
    key, name = "k" * 40, "my runner"

    def mac(secret: str, text: str) -> str:
        digest = hmac.new(secret.encode(), text.encode(), "sha256").digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    runner = f"ppr_{quote(name, safe='')}.{mac(key, f'register:{name}')}"
    made = [runner, f"ppx_{mac(runner, 'run')}", f"pps_{mac(key, 'service')}"]
    assert "\n".join(made) in (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    keys = RunnerKeys([key])
    assert [keys.runner_token(name), run_token_of(runner), keys.service_token()] == made
    assert keys.runner_of(runner) == (name, mac(key, "id")[:12])


def _keeps(followed: Reader, block: Block, variables: dict[str, str]) -> None:
    for command in commands(block):
        printed = followed.run(command.text, **variables)
        assert keeps_promise(command.output or "", printed), f"{block.place}: $ {command.text}\n{printed}"


def _program(followed: Reader, block: Block, interpreter: str) -> str:
    name = block.text.partition("\n")[0].lstrip("#/ ").strip()
    (followed.folder / name).write_text(followed.placed(block.text), encoding="utf-8")
    return followed.run(f"{interpreter} {name}")
