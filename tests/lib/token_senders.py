"""Somebody who calls a gateway with a token, or without one."""

from typing import Any

import requests

ADMIN_TOKEN = "an-admin-token-that-nobody-guesses-0123"
METRICS_TOKEN = "a-metrics-token-that-nobody-guesses-012"
WAIT_SECONDS = 20.0


class Sender:
    """Somebody with a token, or without one."""

    def __init__(self, url: str, token: str | None, key_id: str | None = None) -> None:
        self.url = url
        self.token = token
        self.key_id = key_id

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        if self.token is not None:
            headers = {"Authorization": f"Bearer {self.token}", **headers}
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=WAIT_SECONDS)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> requests.Response:
        return self.call("POST", path, body, **headers)

    def submit(self, algorithm: str, payload: Any, **envelope: Any) -> requests.Response:
        return self.post("/tasks", {"algorithm": algorithm, "payload": payload, **envelope})
