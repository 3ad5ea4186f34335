"""What becomes of a task whose handler fetches, in a real runner and at the command line."""

import json
import os
import subprocess
import sys

import pytest
import requests

from runnerlib.testing import serving

ADAPTER = '''
def run_size(url: str, *, fetch) -> int:
    """How many bytes there are.

    >>> run_size("data:,abc")
    3
    """
    return len(fetch(url).content)


def batch_size(url: list[str], *, fetch) -> list[int]:
    return fetch.many(url, lambda fetched: len(fetched.content))


async def run_later(url: str, *, fetch) -> int:
    return len((await fetch.aio(url)).content)
'''
SETTINGS = {"FETCH_ALLOW_PRIVATE": "127.0.0.0/8", "FETCH_MAX_BYTES": "1000", "LOG_FORMAT": "json"}


def batch(runner, algorithm, **urls):
    items = [{"id": f"{algorithm}-{id}", "attempt": 1, "payload": {"url": url}} for id, url in urls.items()]
    answer = requests.post(f"{runner.url}/batch/{algorithm}", json=items, headers={"Prefer": "wait=20"}, timeout=40)
    return {entry["id"].partition("-")[2]: entry for entry in answer.json()}


def test_outcomes_say_whether_another_attempt_may_help(write, server):
    with serving(write(ADAPTER), environment=SETTINGS) as runner:
        assert runner.run("size", {"url": f"{server.url}/bytes/5"}) == 5
        for algorithm in ("size", "later"):
            found = batch(
                runner,
                algorithm,
                good=f"{server.url}/bytes/6",
                gone=f"{server.url}/status/404?key=secret",
                down=f"{server.url}/status/503",
                large=f"{server.url}/bytes/1001",
                inside="http://10.0.0.1/",
            )
            assert found["good"]["result"] == 6
            errors = {id: (e["error"]["code"], e["error"]["retryable"]) for id, e in found.items() if "error" in e}
            assert errors == {
                "gone": ("invalid_payload", False),
                "down": ("handler_error", True),
                "large": ("invalid_payload", False),
                "inside": ("invalid_payload", False),
            }
            message = found["gone"]["error"]["message"]
            assert message.startswith(f"{server.url}/status/404?… answered 404 Not Found; ")


def test_a_network_that_cannot_be_read_ends_the_start_with_a_sentence(write):
    with (
        pytest.raises(RuntimeError, match=r"FETCH_ALLOW_PRIVATE has a value '10\.0\.0\.1/8' that cannot be used: "),
        serving(write(ADAPTER), environment={"FETCH_ALLOW_PRIVATE": "10.0.0.1/8"}),
    ):
        pass


def test_the_command_line_fetches_by_the_same_rules(write, server):
    path = write(ADAPTER)

    def run(*arguments, **settings):
        return subprocess.run(
            [sys.executable, "-m", "runnerlib", *arguments],
            cwd=path.parent,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=60,
        )

    payload = json.dumps({"url": f"{server.url}/bytes/7"})
    assert run("run", "size", payload, **SETTINGS).stdout == "7\n"
    refused = run("run", "size", payload)
    assert refused.returncode == 1
    assert "permanent: it would not be retried" in refused.stderr
    assert "is not at a public address" in refused.stderr
    checked = run("check", "--self-test")
    assert (checked.returncode, "example of size: passed" in checked.stdout) == (0, True), checked.stderr
