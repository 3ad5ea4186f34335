"""Whatever is sent, the gateway answers with a problem in words: never a 5xx, never a traceback."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FEW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

#: For tests that send several requests for each example.
FEWER = settings(FEW, max_examples=25)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "algorithm": st.sampled_from(["upper", "anything", "uper", "", "../x"]) | anything,
        "payload": anything,
        "id": st.text(max_size=140) | anything,
        "expires_seconds": anything,
        "delay_seconds": anything,
        "group": st.text(max_size=70) | anything,
        "priority": anything,
        "ids": st.lists(st.integers(), max_size=3) | anything,
        "filter": st.dictionaries(st.sampled_from(["algorithm", "codes", "created_from"]), anything, max_size=2),
    },
)
bodies = st.binary(max_size=200) | (anything | nearly | st.lists(nearly, max_size=4)).map(
    lambda value: json.dumps(value, allow_nan=True).encode()
)


parameters = st.sampled_from(
    ["algorithm", "state", "code", "created_from", "created_before", "limit", "cursor", "task_id", "all"]
) | st.text(max_size=5)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def check(answer: requests.Response) -> None:
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text and 'File "' not in answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"]


@FEW
@given(body=bodies)
def test_any_body_to_tasks(gateway: Any, session: requests.Session, body: bytes) -> None:
    check(session.post(f"{gateway.url}/tasks", data=body, headers={"Content-Type": "application/json"}, timeout=10))


@FEW
@given(body=bodies, kind=st.sampled_from(["application/json", "application/x-ndjson"]))
def test_any_body_to_batch(gateway: Any, session: requests.Session, body: bytes, kind: str) -> None:
    check(session.post(f"{gateway.url}/tasks/batch", data=body, headers={"Content-Type": kind}, timeout=10))


@FEW
@given(
    key=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=150),
    prefer=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
def test_any_headers(gateway: Any, session: requests.Session, key: str, prefer: str) -> None:
    headers = {"Idempotency-Key": key.strip(), "Prefer": prefer.strip(), "Content-Type": "application/json"}
    body = b'{"algorithm":"anything","payload":1}'
    check(session.post(f"{gateway.url}/tasks", data=body, headers=headers, timeout=90))


@FEWER
@given(name=st.text(min_size=1, max_size=150))
def test_any_path(gateway: Any, session: requests.Session, name: str) -> None:
    part = requests.utils.quote(name.encode("utf-8", "surrogatepass"), safe="")
    for path in (f"/tasks/{part}", f"/algorithms/{part}", f"/dead/{part}"):
        check(session.get(gateway.url + path, timeout=10))
    check(session.delete(f"{gateway.url}/tasks/{part}", timeout=10))
    for path in (f"/dead/{part}/replay", f"/dead/{part}/discard", f"/algorithms/{part}/tasks"):
        check(session.post(gateway.url + path, json={"text": "a"}, timeout=10))


@FEWER
@given(query=st.dictionaries(parameters, st.text(max_size=30) | st.sampled_from(["1", "t1", "2026-01-01"]), max_size=3))
def test_any_query(gateway: Any, session: requests.Session, query: dict[str, str]) -> None:
    text = urlencode(query, errors="surrogatepass")
    for path in ("/tasks", "/dead"):
        check(session.get(f"{gateway.url}{path}?{text}", timeout=10))


@FEWER
@given(body=bodies)
def test_any_body_to_calls_on_many(gateway: Any, session: requests.Session, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("/dead/discard", "/dead/replay", "/tasks/lookup", "/algorithms/anything/tasks"):
        check(session.post(gateway.url + path, data=body, headers=headers, timeout=10))


def test_endless_chunked_body_is_cut_off(gateway: Any, session: requests.Session, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(4096):
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    for path in ("/tasks", "/tasks/batch", "/algorithms/upper/run", "/dead/replay"):
        try:
            answer = session.post(gateway.url + path, data=chunks(), headers=headers, timeout=20)
        except requests.exceptions.ConnectionError:
            continue  # cut while it still sent: as good
        assert answer.status_code == 413


def test_sender_that_leaves_half_way_is_no_error_of_ours(gateway: Any, caplog: pytest.LogCaptureFixture) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    head = b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head)
    assert gateway.post("upper", {"text": "still here"}).status_code == 202
    assert "a request failed" not in caplog.text


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"",'])
def test_millions_of_values_are_refused_before_they_are_made(gateway: Any, unit: bytes) -> None:
    body = b"[" + unit * 3_100_000 + unit[:-1] + b"]"
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{gateway.url}/tasks/batch", data=body, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert "more than 3000000 values" in answer.json()["detail"]


@pytest.mark.parametrize("blank", [b"", b"\n" * 5_000_000])
def test_lines_of_a_batch_are_counted_before_they_are_read(gateway: Any, blank: bytes) -> None:
    body = blank + b"{}\n \n" * 1001
    answer = requests.post(
        f"{gateway.url}/tasks/batch", data=body, headers={"Content-Type": "application/x-ndjson"}, timeout=30
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "more than 1000 messages" in answer.json()["detail"]
