"""Where commands look for the gateway."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from producer.cli.options import DEFAULT_GATEWAY, GatewayAddress, find_gateway
from producer.errors import BadInput


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GATEWAY_URL", "GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_FOLDER", str(tmp_path))


def running(folder: Path, pid: int) -> None:
    state = {"pid": pid, "gateway": "http://127.0.0.1:18123", "discovery": "http://127.0.0.1:1"}
    (folder / "environment.json").write_text(json.dumps(state))


def test_first_that_is_there_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_gateway("").url == DEFAULT_GATEWAY
    running(tmp_path, os.getpid())
    found = find_gateway("")
    assert (found.url, found.source) == ("http://127.0.0.1:18123", f"of the environment that runs in {tmp_path}")
    monkeypatch.setenv("GATEWAY_PORT", "18124")
    assert find_gateway("") == GatewayAddress("http://127.0.0.1:18124", "from GATEWAY_PORT")
    monkeypatch.setenv("GATEWAY_URL", "http://g")
    assert find_gateway("http://g") == GatewayAddress("http://g", "from GATEWAY_URL")
    assert find_gateway("http://h") == GatewayAddress("http://h", "from --gateway")


def test_environment_that_ended_or_wrote_nonsense_is_none(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    running(tmp_path, process.pid)
    assert find_gateway("").url == DEFAULT_GATEWAY
    for content in ("", "[]", "{}", '{"pid": "x", "gateway": 1}', '{"pid": -1, "gateway": "http://g"}'):
        (tmp_path / "environment.json").write_text(content)
        assert find_gateway("").url == DEFAULT_GATEWAY, content


@pytest.mark.parametrize("port", ["abc", "0", "65536", "8000 "])
def test_port_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("GATEWAY_PORT", port)
    with pytest.raises(BadInput, match="GATEWAY_PORT"):
        find_gateway("")


def test_command_finds_the_environment_and_says_where_an_address_came_from(tmp_path: Path) -> None:
    running(tmp_path, os.getpid())

    def told(**more: str) -> str:
        variables = {"PATH": os.environ["PATH"], "DATA_FOLDER": str(tmp_path), **more}
        command = [sys.executable, "-m", "producer", "algorithms"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 4
        return done.stderr

    assert f"http://127.0.0.1:18123 (of the environment that runs in {tmp_path})" in told()
    assert "http://127.0.0.1:9 (from GATEWAY_PORT)" in told(GATEWAY_PORT="9")
    assert "http://127.0.0.1:7 (from GATEWAY_URL)" in told(GATEWAY_PORT="9", GATEWAY_URL="http://127.0.0.1:7")
