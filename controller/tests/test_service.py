"""``python -m controller``: a process of its own, with a real broker and a real database that come and go."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import psutil
import pytest

from runnerlib.contract.identity import RunnerKeys

#: What an idle controller may take.
MOST_IDLE_MB = 110


class Process:
    def __init__(self, process, url, log):
        self.process = process
        self.url = url
        self.log = log

    def reasons(self):
        """Why it is not ready; empty when it is."""
        return httpx.get(f"{self.url}/healthz/ready", timeout=5).json()["reasons"]

    def until(self, condition, seconds=40):
        """The reasons for which the condition holds."""
        until, seen = time.monotonic() + seconds, None
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()
            try:
                seen = self.reasons()
            except httpx.TransportError:
                seen = None
            if seen is not None and condition(seen):
                return seen
            time.sleep(0.1)
        raise AssertionError(f"still {seen}")


@pytest.fixture
def controller_process(tmp_path):
    """``with controller_process(queue_url, database_url) as process``"""

    @contextmanager
    def started(queue_url, database_url, port, **settings):
        log = tmp_path / "controller.log"
        environment = {
            **os.environ,
            "QUEUE_URL": queue_url,
            "DATABASE_URL": database_url,
            "PORT": str(port),
            "GRACE_SECONDS": "2",
            **settings,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "controller"], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield Process(process, f"http://127.0.0.1:{port}", log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    return started


def test_controller_waits_for_servers_that_start_later_and_stops_in_order(
    controller_process, own_broker, own_postgres, free_port
):
    broker = own_broker()
    broker.stop()
    own_postgres.stop()
    with controller_process(broker.url, own_postgres.url, free_port) as controller:
        reasons = controller.until(lambda reasons: "store" in reasons)
        assert not any(secret in str(reasons) for secret in (broker.password, "Traceback"))
        own_postgres.start()
        # discovery is not there at all
        controller.until(lambda reasons: "store" not in reasons and any("broker" in why for why in reasons.values()))
        broker.start()
        controller.until(lambda reasons: list(reasons) == ["catalogue"])
        assert psutil.Process(controller.process.pid).memory_info().rss < MOST_IDLE_MB * 1024 * 1024
        own_postgres.stop()
        controller.until(lambda reasons: "store" in reasons)
        own_postgres.start()
        controller.until(lambda reasons: list(reasons) == ["catalogue"])
        controller.process.send_signal(signal.SIGTERM)
        assert controller.process.wait(8) == 0
        log = controller.log.read_text()
        assert broker.password not in log
        assert "Traceback" not in log


def test_controller_stops_in_bounded_time_while_broker_and_database_are_gone(
    controller_process, own_broker, own_postgres, free_port
):
    broker = own_broker()
    with controller_process(broker.url, own_postgres.url, free_port) as controller:
        controller.until(lambda reasons: list(reasons) == ["catalogue"])
        broker.kill()
        own_postgres.kill()
        controller.until(lambda reasons: "store" in reasons and "queue" in reasons)
        controller.process.send_signal(signal.SIGTERM)
        # its grace of 2 s, and the little that a stop may take beyond
        assert controller.process.wait(8) == 0


def test_password_that_the_broker_refuses_is_told_and_not_shown(controller_process, broker_server, free_port):
    url = broker_server.url.replace(broker_server.password, "not-the-password")
    with controller_process(url, "postgresql://127.0.0.1:1/nowhere", free_port) as controller:
        reasons = controller.until(lambda reasons: "refuses the user or the password" in reasons.get("queue", ""))
        assert "store" in reasons
        assert "not-the-password" not in controller.log.read_text() + str(reasons)


def test_database_that_does_not_exist_ends_the_start_with_a_sentence(controller_process, postgres_server, free_port):
    url = postgres_server.url_of("nothing_here")
    with controller_process("amqp://127.0.0.1:1", url, free_port) as controller:
        assert controller.process.wait(30) == 1
        log = controller.log.read_text()
        assert "nothing_here" in log
        assert "Traceback" not in log


def test_controller_with_keys_shows_its_metrics_to_services_and_monitors_alone(controller_process, free_port):
    keys, metrics = RunnerKeys(["k" * 40]), "m" * 40
    # Neither server is there: it answers all the same.
    nowhere = ("amqp://guest:guest@127.0.0.1:1/", "postgresql://x:x@127.0.0.1:1/x")
    settings = {"RUNNER_KEYS": "k" * 40, "METRICS_TOKEN": metrics, "HOST": "0.0.0.0"}
    with controller_process(*nowhere, free_port, **settings) as controller:
        controller.until(lambda reasons: reasons)

        def status(path, token=None):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return httpx.get(controller.url + path, headers=headers, timeout=10).status_code

        document = httpx.get(f"{controller.url}/openapi.json", timeout=10).json()
        assert {path for path in document["paths"] if status(path) == 401} == {"/metrics"}
        assert [status("/metrics", token) for token in (keys.service_token(), metrics)] == [200, 200]
        assert [status("/metrics", token) for token in ("x", "k" * 40)] == [401, 401]
        assert status("/metrics", keys.runner_token("text")) == 403
        assert status("/docs") == 200


def test_controller_does_not_listen_beyond_this_machine_without_keys(controller_process, free_port):
    nowhere = ("amqp://guest:guest@127.0.0.1:1/", "postgresql://x:x@127.0.0.1:1/x")
    with controller_process(*nowhere, free_port, HOST="0.0.0.0") as controller:
        assert controller.process.wait(40) == 1
        assert "set RUNNER_KEYS_FILE, or AUTH=none" in controller.log.read_text()
