"""Another machine in the same network, as far as services can tell: a network namespace of its own. Needs root."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CALL = """
import json, sys, requests
method, url, headers, body = json.load(sys.stdin)
answer = requests.request(method, url, headers=headers, data=body.encode(), timeout=20)
print(json.dumps([answer.status_code, answer.text]))
"""


class OtherMachine:
    """`address` is its own; `here` is the address at which it reaches this one."""

    def __init__(self, number: int) -> None:
        self._name = f"other-{number}"
        self.here, self.address = (f"10.213.{number % 250}.{last}" for last in (1, 2))

    @contextmanager
    def running(self) -> Iterator["OtherMachine"]:
        """Raises OSError or CalledProcessError where that is not possible."""
        name, link = self._name, self._name.replace("other", "v")
        inside = ["netns", "exec", name, "ip"]
        _ip("netns", "add", name)
        try:
            _ip("link", "add", link, "type", "veth", "peer", "name", f"{link}p", "netns", name)
            _ip("addr", "add", f"{self.here}/30", "dev", link)
            _ip("link", "set", link, "up")
            _ip(*inside, "addr", "add", f"{self.address}/30", "dev", f"{link}p")
            for each in (f"{link}p", "lo"):
                _ip(*inside, "link", "set", each, "up")
            yield self
        finally:
            _ip("netns", "del", name)

    def call(self, method: str, port: int, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Calls a service of this machine from there; status and JSON of the answer."""
        asked = json.dumps([method, f"http://{self.here}:{port}{path}", headers, body.decode()])
        command = ["ip", "netns", "exec", self._name, sys.executable, "-c", _CALL]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60, check=True)
        status, text = json.loads(done.stdout)
        return status, json.loads(text) if text else None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20, env={**os.environ, "LC_ALL": "C"})
