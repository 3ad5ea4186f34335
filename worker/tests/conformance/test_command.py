"""What was typed becomes a report and an exit code."""

import json
import subprocess
import sys
from typing import Any

import pytest

from worker.conformance.checks import Level
from worker.conformance.client import NOTHING
from worker.conformance.command import read_json, read_level, read_url
from worker.conformance.target import BadRequest


def _worker(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "worker", "conformance", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_levels_are_asked_for_by_name_or_number() -> None:
    assert (read_level("Durable"), read_level("4")) == (Level.DURABLE, Level.BATCHED)
    with pytest.raises(BadRequest, match="'5' is no level; there are 1 or plain, 2 or observed"):
        read_level("5")


def test_an_address_needs_no_scheme() -> None:
    assert read_url("127.0.0.1:8101") == "http://127.0.0.1:8101"
    with pytest.raises(BadRequest, match="ftp://there"):
        read_url("ftp://there")


def test_payloads_are_json_and_null_is_one() -> None:
    assert read_json("--payload", None) is NOTHING
    assert read_json("--payload", "null") is None
    with pytest.raises(BadRequest, match="--payload is not JSON"):
        read_json("--payload", "{")


def test_what_cannot_be_done_ends_with_a_sentence(free_port: Any) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    for words, code, says in (
        ([nobody], 1, f"nobody answers at http://{nobody}"),
        ([nobody, "--level", "none"], 2, "'none' is no level"),
        ([nobody, "--slow", "{"], 2, "--slow is not JSON"),
    ):
        done = _worker(*words)
        assert (done.returncode, done.stdout) == (code, "")
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_the_exit_code_tells_whether_the_level_is_reached(sound_runner: str) -> None:
    plain = _worker(sound_runner)
    assert plain.returncode == 0, plain.stdout
    assert "level 2 of 4, observed" in plain.stdout
    more = _worker(sound_runner, "--level", "durable", "--json")
    assert more.returncode == 1
    told = json.loads(more.stdout)
    assert (told["level"], told["asked"]) == ("observed", "durable")
