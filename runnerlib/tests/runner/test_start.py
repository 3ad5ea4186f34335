"""A runner is ready when everything has loaded; until then it says why not. Registration follows readiness."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from runnerlib.registration import RENEW_SECONDS, _content, _renew_seconds

PLAIN = "def run_upper(text: str) -> str:\n    return text.upper()\n"


class Discovery:
    """Remembers what it was told; answers `status` and `body`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.status = 200
        self.body = b""
        told = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                told.calls.append((self.command, self.path, json.loads(body or b"{}")))
                self.send_response(told.status)
                self.send_header("Content-Length", str(len(told.body)))
                self.end_headers()
                self.wfile.write(told.body)

            do_PUT = do_DELETE = _answer

            def log_message(self, *_arguments: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.calls]


@pytest.fixture
def discovery() -> Iterator[Discovery]:
    found = Discovery()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_runner_registers_when_ready_and_leaves_when_it_stops(
    serve_adapter: Callable[..., Any], discovery: Discovery, until: Any
) -> None:
    runner = serve_adapter(PLAIN, DISCOVERY_URL=discovery.url)
    until(lambda: discovery.calls, "it registered")
    method, path, body = discovery.calls[0]
    assert (method, path) == ("PUT", f"/runners/test-127.0.0.1-{runner.port}")
    assert (body["name"], body["host"]) == ("test", runner.url)
    assert body["boot"] == runner.get("/healthz/live").headers["Runner-Boot"]
    assert [one["name"] for one in body["algorithms"]] == ["upper"]
    assert runner.stop() == 0
    assert discovery.methods()[-1] == "DELETE"


@pytest.mark.serial
def test_a_lease_that_is_short_is_renewed_before_it_is_over(
    serve_adapter: Callable[..., Any], discovery: Discovery, until: Any
) -> None:
    discovery.body = b'{"epoch": "e", "index": 1, "lease_seconds": 0.9}'
    serve_adapter(PLAIN, DISCOVERY_URL=discovery.url)
    until(lambda: len(discovery.calls) >= 4, "it was renewed three times", 8)


@pytest.mark.parametrize("body", [b"thanks", b"[]", b'{"lease_seconds": "long"}', b'{"lease_seconds": -1}'])
def test_a_registry_that_tells_no_lease_is_renewed_like_ours(body: bytes) -> None:
    answer = requests.Response()
    answer._content = body
    assert _renew_seconds(_content(answer)) == RENEW_SECONDS


def test_a_runner_tries_on_while_discovery_refuses(
    serve_adapter: Callable[..., Any], discovery: Discovery, until: Any
) -> None:
    discovery.status = 500
    runner = serve_adapter(
        PLAIN,
        RUNNER_DISCOVERY_CONTAINER_NAME="127.0.0.1",
        RUNNER_DISCOVERY_PORT=str(discovery.server.server_port),
        ADVERTISE_HOST="upper.example:80",
    )
    until(lambda: len(discovery.calls) >= 2, "it tried twice")
    assert runner.run("upper", {"text": "a"}).json() == {"result": "A"}
    assert discovery.calls[0][1:2] == ("/runners/test-upper.example-80",)
    assert runner.stop() == 0


def test_discovery_that_is_away_stops_nothing(serve_adapter: Callable[..., Any]) -> None:
    runner = serve_adapter(PLAIN, DISCOVERY_URL="http://127.0.0.1:9")
    assert runner.run("upper", {"text": "a"}).json() == {"result": "A"}
    assert runner.stop() == 0


def test_what_cannot_load_is_told_and_tried_again(
    serve_adapter: Callable[..., Any], discovery: Discovery, until: Any, tmp_path: Path, item: Any
) -> None:
    model = tmp_path / "model"
    source = f"""
    def load_model():
        return open({str(model)!r}).read()

    def run_read(*, model) -> str:
        return model
    """
    runner = serve_adapter(source, ready=False, DISCOVERY_URL=discovery.url)

    def reason() -> str:
        return str(runner.get("/healthz/ready").json()["reasons"].get("worker processes of read", ""))

    until(lambda: "load_model() failed" in reason(), "it says why it is not ready")
    assert runner.get("/healthz/live").status_code == 200
    for answer in (runner.run("read", {}), runner.post_batch("read", [item("a", {})])):
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert discovery.calls == []
    model.write_text("weights")
    runner.ready()
    until(lambda: discovery.methods() == ["PUT"], "it registered once it was ready")
    assert runner.run("read", {}).json() == {"result": "weights"}


def test_what_loads_is_offered_also_when_something_else_cannot(
    serve_adapter: Callable[..., Any], discovery: Discovery, until: Any, tmp_path: Path
) -> None:
    tool = tmp_path / "tool"
    source = f"""
    def load_reader():
        return open({str(tool)!r}).read()

    def run_read(*, reader) -> str:
        return reader

    def run_upper(text: str) -> str:
        return text.upper()
    """
    runner = serve_adapter(source, ready=False, DISCOVERY_URL=discovery.url)

    def told() -> list[list[str]]:
        return [[one["name"] for one in body["algorithms"]] for method, _, body in discovery.calls if method == "PUT"]

    until(lambda: told() == [["upper"]], "it registered without what cannot load")
    assert runner.run("upper", {"text": "a"}).json() == {"result": "A"}
    assert runner.run("read", {}).json()["code"] == "not_ready"
    readiness = runner.get("/healthz/ready")
    assert readiness.status_code == 503
    assert list(readiness.json()["reasons"]) == ["worker processes of read"]
    tool.write_text("text")
    until(lambda: told()[-1] == ["read", "upper"], "it registered what loads now, too")
    assert runner.run("read", {}).json() == {"result": "text"}
    assert len({body["boot"] for method, _, body in discovery.calls if method == "PUT"}) == 1


def test_a_runner_registers_once_everything_has_loaded_or_failed_to(
    serve_adapter: Callable[..., Any], discovery: Discovery, until: Any, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    source = f"""
    import os, time

    def load_model():
        while not os.path.exists({str(go)!r}):
            time.sleep(0.02)
        return "loaded"

    def run_slow(*, model) -> str:
        return model

    def run_upper(text: str) -> str:
        return text.upper()
    """
    runner = serve_adapter(source, ready=False, DISCOVERY_URL=discovery.url)
    until(lambda: runner.run("upper", {"text": "a"}).status_code == 200, "the quick one works")
    assert discovery.calls == []
    go.touch()
    until(lambda: discovery.calls, "it registered")
    assert [one["name"] for one in discovery.calls[0][2]["algorithms"]] == ["slow", "upper"]


def test_an_example_that_fails_keeps_the_runner_from_being_ready(serve_adapter: Callable[..., Any], until: Any) -> None:
    source = '''
    def run_double(number: int) -> int:
        """
        >>> run_double(2)
        5
        """
        return 2 * number
    '''
    runner = serve_adapter(source, ready=False)
    until(lambda: "run_double(): its example says 5" in runner.get("/healthz/ready").text, "it says why")


def test_an_adapter_with_mistakes_ends_the_runner_with_a_sentence(serve_adapter: Callable[..., Any]) -> None:
    runner = serve_adapter("def run_x(text):\n    return text\n", ready=False)
    assert runner.process.wait(20) == 3
    assert "run_x(): parameter 'text' has no type hint" in runner.log
    assert "Traceback" not in runner.log


def test_what_an_author_prints_is_in_the_log(serve_adapter: Callable[..., Any], until: Any) -> None:
    source = "def run_say(text: str, *, logger) -> None:\n    print('printed', text)\n    logger.info('logged')\n"
    runner = serve_adapter(source)
    runner.run("say", {"text": "hello"}, id="spoken")
    until(lambda: "printed hello" in runner.log, "what was printed arrives")
    logged = next(json.loads(line) for line in runner.log.splitlines() if '"logged"' in line)
    assert (logged["task_id"], logged["algorithm"], logged["service"]) == ("spoken", "say", "test")


def test_two_slots_work_at_the_same_time(serve_adapter: Callable[..., Any]) -> None:
    source = "import os, time\ndef run_pid(seconds: float) -> int:\n    time.sleep(seconds)\n    return os.getpid()\n"
    runner = serve_adapter(source, OPTION_PID_SLOTS="2")
    calls = [runner.later(runner.run, "pid", {"seconds": 0.3}) for _ in range(2)]
    assert len({call.result().json()["result"] for call in calls}) == 2
