"""A runner with a token takes runs from its own environment alone."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from runnerlib.contract.identity import RunnerKeys, run_token_of

UPPER = "def run_upper(text: str) -> str:\n    return text.upper()\n"
KEYS = RunnerKeys(["k" * 40])
TOKEN, METRICS = KEYS.runner_token("test"), "m" * 40
RUNS = run_token_of(TOKEN)
STRANGERS = [None, TOKEN, KEYS.service_token(), run_token_of(KEYS.runner_token("other")), "x", METRICS]
ITEM = [{"id": "t1", "attempt": 1, "payload": {"text": "a"}}]
#: Every call, whether it is open, and with which body it is tried; and what those may answer who may make it.
CALLS: dict[tuple[str, str], tuple[bool, str, Any, set[int]]] = {
    ("GET", "/healthz/live"): (True, "/healthz/live", None, {200}),
    ("GET", "/healthz/ready"): (True, "/healthz/ready", None, {200}),
    ("GET", "/schemas"): (True, "/schemas", None, {200}),
    ("GET", "/metrics"): (False, "/metrics", None, {200}),
    ("POST", "/run/upper"): (False, "/run/upper", {"text": "a"}, {200}),
    ("POST", "/batch/{algorithm}"): (False, "/batch/upper", ITEM, {200}),
    ("GET", "/tasks/{id}"): (False, "/tasks/unknown", None, {404}),
    ("DELETE", "/tasks/{id}"): (False, "/tasks/unknown", None, {404}),
}


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@pytest.fixture
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(UPPER, RUNNER_TOKEN=TOKEN, METRICS_TOKEN=METRICS)


def test_every_documented_call_is_open_or_needs_the_token_for_runs(runner: Any) -> None:
    document = runner.get("/openapi.json").json()
    calls = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert calls == CALLS.keys()
    for (method, documented), (is_open, path, body, expected) in CALLS.items():
        operation = document["paths"][documented][method.lower()]
        assert ("security" in operation) == is_open, "those that are open say so, the others inherit"

        def ask(token: str | None, method: str = method, path: str = path, body: Any = body) -> requests.Response:
            return requests.request(method, runner.url + path, json=body, headers=bearer(token), timeout=60)

        assert ask(RUNS).status_code in expected
        for token in STRANGERS:
            allowed = is_open or (path == "/metrics" and token == METRICS)
            answer = ask(token)
            assert answer.status_code in (expected if allowed else {401}), (path, token)
            assert answer.headers["Runner-Boot"]


def test_unknown_paths_and_algorithms_tell_strangers_nothing(runner: Any) -> None:
    assert requests.post(f"{runner.url}/run/unknown", json={}, timeout=60).status_code == 401
    assert requests.post(f"{runner.url}/run/unknown", json={}, headers=bearer(RUNS), timeout=60).status_code == 404
    assert runner.get("/docs").status_code == 200
    assert runner.get("/nothing").status_code == 404


def test_token_of_another_name_ends_the_start(serve_adapter: Callable[..., Any]) -> None:
    runner = serve_adapter(UPPER, RUNNER_TOKEN=KEYS.runner_token("other"), ready=False)
    assert runner.process.wait(60) == 1
    assert "the token is that of runner 'other', and this one is 'test'" in runner.log


@pytest.mark.parametrize("token", ["x" * 40, "ppr_.x", KEYS.service_token()])
def test_what_is_no_runners_token_is_refused_and_not_shown(serve_adapter: Callable[..., Any], token: str) -> None:
    runner = serve_adapter(UPPER, RUNNER_TOKEN=token, ready=False)
    assert runner.process.wait(60) == 2
    assert "RUNNER_TOKEN has a value that cannot be used: it is no runner's token" in runner.log
    assert token not in runner.log


def test_runner_does_not_listen_beyond_this_machine_without_a_token(serve_adapter: Callable[..., Any]) -> None:
    runner = serve_adapter(UPPER, HOST="0.0.0.0", ready=False)
    assert runner.process.wait(60) == 1
    assert "set RUNNER_TOKEN_FILE, or AUTH=none" in runner.log


@pytest.mark.parametrize("variables", [{"AUTH": "none"}, {"RUNNER_TOKEN": TOKEN}])
def test_runner_listens_beyond_this_machine_when_that_is_meant(
    serve_adapter: Callable[..., Any], variables: dict[str, str]
) -> None:
    assert serve_adapter(UPPER, HOST="0.0.0.0", **variables).get("/healthz/ready").status_code == 200


def test_handlers_do_not_get_the_token(serve_adapter: Callable[..., Any]) -> None:
    adapter = """
        import os

        def run_look() -> dict[str, str]:
            return dict(os.environ)
    """
    runner = serve_adapter(adapter, RUNNER_TOKEN=TOKEN, METRICS_TOKEN=METRICS)
    answer = requests.post(f"{runner.url}/run/look", json={}, headers=bearer(RUNS), timeout=60)
    assert answer.status_code == 200
    assert TOKEN not in answer.text and METRICS not in answer.text
