"""The client against a real gateway, and against others."""

import re
import socket
import threading
import time
from typing import Any

import pytest

from producer.client.client import GatewayClient
from producer.errors import GatewayUnreachable, Refused
from producer.models import TaskState
from taskqueue.tasks import Placement, Succeeded


def test_wait_tells_the_progress_on_the_way(gateway: Any) -> None:
    seen = []
    with GatewayClient(gateway.url) as client:
        task = client.submit("upper", {"text": "a"})
        delivery = gateway.take("upper")
        gateway.run(gateway.store.place([(delivery, Placement(task.id, 1, "text-1", "boot"))]))
        gateway.run(gateway.store.report_progress([(task.id, 1, 0.5, "half")]))

        def finish(view: Any) -> None:
            seen.append(view.progress.fraction)
            gateway.run(gateway.store.record([_succeeded(delivery)]))

        view = client.wait(task.id, 10, on_view=finish)
    assert (view.state, view.result, seen) == (TaskState.SUCCEEDED, "A", [0.5])


def test_submit_can_wait_for_the_result(gateway: Any) -> None:
    runner = threading.Thread(target=gateway.succeed, args=("upper", b'"A"'))
    runner.start()
    with GatewayClient(gateway.url) as client:
        assert client.submit("upper", {"text": "a"}, wait_seconds=10, expires_seconds=60).result == "A"
    runner.join()


def test_submit_can_name_a_group_and_a_delay(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, usual = [], gateway.queue.publish

    async def publish(tasks: Any, **options: Any) -> Any:
        sent.extend(tasks)
        return await usual(tasks, **options)

    monkeypatch.setattr(gateway.queue, "publish", publish)
    before = time.time()
    with GatewayClient(gateway.url) as client:
        client.submit("upper", {"text": "a"}, delay_seconds=3600, group="acme")
    [task] = sent
    assert task.group == "acme"
    assert before + 3600 <= task.not_before <= time.time() + 3600


def test_refusal_carries_code_and_fields(gateway: Any) -> None:
    with GatewayClient(gateway.url) as client, pytest.raises(Refused, match="text is missing") as caught:
        client.submit("upper", {})
    assert (caught.value.status, caught.value.code) == (422, "invalid_payload")
    assert caught.value.errors == [{"field": "text", "message": "is missing"}]


@pytest.mark.parametrize("payload", [float("nan"), object(), "\ud800"])
def test_payload_that_is_no_json_is_refused_before_it_is_sent(payload: Any) -> None:
    with GatewayClient("http://127.0.0.1:9") as client, pytest.raises(Refused, match="as JSON"):
        client.submit("upper", payload)


@pytest.mark.parametrize("first_answer_bytes", [0, -10])
def test_task_survives_a_connection_that_breaks(gateway: Any, first_answer_bytes: int) -> None:
    """A door in between drops the first connection after the request was passed on; the client asks again."""
    with _Breaker(gateway.url, first_answer_bytes) as breaker, GatewayClient(breaker.url) as client:
        task = client.submit("upper", {"text": "a"})
        assert gateway.get(f"/tasks/{task.id}").json()["state"] == "queued"
    assert breaker.connections == 2


def test_nobody_there_is_told_at_once() -> None:
    with (
        GatewayClient("http://127.0.0.1:9", patience_seconds=60) as client,
        pytest.raises(GatewayUnreachable, match="worker up"),
    ):
        client.algorithms()


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1"])
def test_address_that_is_none_is_told_in_words(url: str) -> None:
    with GatewayClient(url, url_from="GATEWAY_URL") as client, pytest.raises(GatewayUnreachable, match="GATEWAY_URL"):
        client.algorithms()


def test_somebody_else_at_the_address_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with GatewayClient(url) as client, pytest.raises(GatewayUnreachable, match="not our gateway"):
            client.algorithms()
        thread.join(10)


def _succeeded(delivery: Any) -> Any:
    return Succeeded(delivery, b'"A"', "text-1")


def _answer(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(answer)


def _message(connection: socket.socket) -> bytes:
    """One whole request or answer: headers and body may come in two pieces."""
    data = connection.recv(65_536)
    while b"\r\n\r\n" not in data or len(data.split(b"\r\n\r\n", 1)[1]) < _content_length(data):
        data += connection.recv(65_536)
    return data


def _content_length(data: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", data.lower())
    return int(found.group(1)) if found else 0


class _Breaker:
    """A TCP door to the gateway that drops its first connection within the gateway's answer."""

    def __init__(self, target: str, first_answer_bytes: int) -> None:
        self._first_answer_bytes = first_answer_bytes
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.connections = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "_Breaker":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.join(10)
        self._server.close()

    def _serve(self) -> None:
        for _ in range(2):
            connection, _address = self._server.accept()
            self.connections += 1
            with connection, socket.create_connection(self._target) as target:
                target.sendall(_message(connection))
                answer = _message(target)
                connection.sendall(answer if self.connections == 2 else answer[: self._first_answer_bytes])
