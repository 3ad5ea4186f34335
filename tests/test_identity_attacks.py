"""Somebody in the same network, with a server, a token of his own and what he overheard: he touches no honest task."""

import asyncio
import contextlib
import json
import os
import pty
import re
import secrets
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest
import requests
from environments import Environment, Production, Service, bearer, until
from honest_sender import HonestSender
from mallory import Mallory, RecordingProxy
from other_machine import OtherMachine
from servers.rabbitmq import RabbitMQ
from token_senders import ADMIN_TOKEN

from runner_discovery.admission import known_as
from runnerlib.contract.identity import RunnerKeys, run_token_of

pytestmark = pytest.mark.timeout(300)

KEY = "a-key-of-this-environment-that-nobody-guesses"
KEYS = RunnerKeys([KEY])
OWN, STEADY = KEYS.runner_token("mallory"), KEYS.runner_token("steady")
FOREIGN_KEYS = RunnerKeys(["x" * 40])
SECRETS = (KEY, ADMIN_TOKEN, STEADY, OWN, run_token_of(STEADY), run_token_of(OWN), KEYS.service_token())
#: Longer than the tests: nobody has to renew.
LEASE_SECONDS = "600"
SLOW_SECONDS = 3
MANY_TOKENS, FIRST_TOKENS, AT_ONCE = 10_000, 500, 16
MOST_MORE_BYTES = 32 * 1024 * 1024
#: For a task to be taken, on a machine that is busy with other tests, too.
MOST_SECONDS = 20.0
#: What moves a cursor, sets a title, or looks like another line of a log.
CONTROLS = ("\x1b[2J", "\x1b]0;mallory\x07", "\x9b2J", '\r\n{"level": "critical"}', "\u202eevil", "\u2028next")
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass
class Scene:
    """The environment that is attacked. `runner` does the honest work; `mallory` has a runner's token of his own."""

    environment: Environment
    runner: Service
    mallory: Mallory

    def ask(
        self, method: str, path: str, token: str | None = None, body: Any = None, **headers: str
    ) -> requests.Response:
        """Calls discovery."""
        headers |= {} if token is None else bearer(token)
        url = self.environment.discovery.url + path
        return requests.request(method, url, json=body, headers=headers, timeout=20)

    def catalogue(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "/catalogue", KEYS.service_token()).json()
        return found

    def id_of(self, name: str) -> str:
        [found] = [id for id, runner in self.catalogue()["runners"].items() if runner["name"] == name]
        return str(found)

    def logs(self) -> str:
        return "".join(service.log.read_text(errors="surrogateescape") for service in self.environment.services)


@pytest.fixture(scope="module", params=["embedded", "rabbitmq4"])
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, broker_servers: Callable[[str], RabbitMQ]
) -> Iterator[Scene]:
    """Discovery listens on every interface. One logs for programs, the other for people."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("attacked")
        made, log_format = _environment(stack, request, folder, broker_servers)
        stack.callback(made.stop)
        runner = made.runner("steady")
        for service in made.services:
            service.settings["LOG_FORMAT"] = log_format
        made.discovery.settings |= {"HOST": "0.0.0.0", "LEASE_SECONDS": LEASE_SECONDS}
        made.start()
        made.wait_offered(runner.start())
        found = Scene(made, runner, stack.enter_context(Mallory().listening()))
        yield found
        said = found.logs()
        assert [secret for secret in SECRETS if secret in said] == [], "a log tells a secret"
        assert _OBEYED.findall(said) == [], "a log holds what a terminal obeys"
        assert "Traceback" not in said
        assert '\n{"level": "critical"}' not in said, "somebody else has written a line of a log"


def _environment(
    stack: ExitStack, request: pytest.FixtureRequest, folder: Path, broker_servers: Callable[[str], RabbitMQ]
) -> tuple[Environment, str]:
    if request.param == "embedded":
        return Environment(folder, keys=KEY), "pretty"
    broker, name = broker_servers("4"), f"attacked_{os.getpid()}"
    queue_url = broker.add_vhost(name)
    stack.callback(broker.remove_vhost, name)
    postgres = request.getfixturevalue("postgres_server")
    database_url = postgres.create_database(name)
    stack.callback(postgres.drop_database, name)
    made = Production(folder, keys=KEY, queue_url=queue_url, database_url=database_url)
    made.controller()
    return made, "json"


# who is who


def test_runner_with_a_token_of_its_own_gets_its_own_tasks_and_no_others(scene: Scene) -> None:
    steady, mallory = scene.id_of("steady"), scene.mallory
    boot = scene.catalogue()["runners"][steady]["boot"]
    # As the runner asks for it; what others may ask for, too, is another id.
    asked = steady.partition("~")[0]
    as_steady, as_himself = mallory.registration("steady", "square"), mallory.registration("mallory", "mine", "square")
    plain = {"algorithm": "square", "host": mallory.host}
    attacks = [
        ("PUT", "/runners/evil-1", None, as_steady, "unauthorized"),
        ("PUT", "/runners/evil-1", "ppr_steady." + "a" * 43, as_steady, "unauthorized"),
        ("PUT", "/runners/evil-1", FOREIGN_KEYS.runner_token("steady"), as_steady, "unauthorized"),
        ("PUT", "/runners/evil-1", run_token_of(STEADY), as_steady, "unauthorized"),
        ("PUT", "/runners/evil-1", ADMIN_TOKEN, as_steady, "unauthorized"),
        ("PUT", "/runners/evil-1", KEYS.service_token(), as_steady, "forbidden"),
        ("PUT", "/runners/evil-1", OWN, as_steady, "other_runner"),
        # the lease of another: taken, ended with and without its boot id
        ("PUT", f"/runners/{asked}", OWN, as_steady, "other_runner"),
        ("PUT", f"/runners/{steady}", OWN, as_himself, "invalid_registration"),
        ("DELETE", f"/runners/{asked}", OWN, None, "unknown_runner"),
        ("DELETE", f"/runners/{asked}?boot={boot}", OWN, None, "unknown_runner"),
        ("DELETE", f"/runners/{steady}?boot={boot}", OWN, None, "unknown_runner"),
        ("DELETE", f"/runners/{asked}?boot={boot}", None, None, "unauthorized"),
        # the algorithm of another
        ("POST", "/algorithms", OWN, plain, "other_owner"),
        ("POST", "/", OWN, plain, "other_owner"),
        ("PUT", "/owners/square", OWN, {"runner": "mallory"}, "forbidden"),
        ("DELETE", "/owners?runner=steady", OWN, None, "forbidden"),
    ]
    with HonestSender(scene.environment).sending():
        for method, path, token, body, code in attacks:
            answer = scene.ask(method, path, token, body)
            assert answer.json().get("code") == code, (method, path, answer.text)
        for runner_id in (asked, "mallory-1"):
            answer = scene.ask("PUT", f"/runners/{runner_id}", OWN, {**as_himself, "boot": boot})
            assert (answer.status_code, answer.json()["clashes"]) == (200, {"square": "steady"})
        assert scene.ask("DELETE", f"/runners/{asked}?boot={boot}", OWN).status_code == 204
        assert scene.catalogue()["runners"][steady]["boot"] == boot
        assert steady not in scene.catalogue()["left"]
    assert [call for call in mallory.calls if "square" in call] == []
    view = scene.catalogue()["algorithms"]["square"]
    assert (view["owner"], view["runners"], view["clashing"]) == ("steady", [steady], [scene.id_of("mallory")])
    # His own task shows that he would have been called.
    known = f"{scene.environment.core.url}/algorithms/mine"
    until(lambda: requests.get(known, headers=scene.environment.as_admin, timeout=5).ok, "his algorithm is known")
    assert scene.environment.finished(scene.environment.submit("mine", {}))["result"] == "stolen"
    assert scene.mallory.calls == ["/batch/mine"]


@pytest.mark.parametrize("whose", ["nobody", "admin", "service", "runner", "another runner", "another environment"])
def test_stranger_can_neither_start_nor_see_nor_end_a_run(scene: Scene, whose: str, tmp_path: Path) -> None:
    token = {
        "nobody": None,
        "admin": ADMIN_TOKEN,
        "service": KEYS.service_token(),
        "runner": STEADY,
        "another runner": run_token_of(OWN),
        "another environment": run_token_of(FOREIGN_KEYS.runner_token("steady")),
    }[whose]
    log = tmp_path / "executions"
    running = scene.environment.submit("slow", {"seconds": SLOW_SECONDS, "log": str(log)})
    until(lambda: log.exists() and running in log.read_text(), "the task runs")
    calls = [
        ("POST", "/run/square", {"number": 2}),
        ("POST", "/batch/square", [{"id": "stolen", "attempt": 1, "payload": {"number": 2}}]),
        ("POST", "/batch/slow", [{"id": running, "attempt": 2, "payload": {"seconds": 0, "log": str(log)}}]),
        ("GET", f"/tasks/{running}", None),
        ("DELETE", f"/tasks/{running}", None),
        ("GET", "/metrics", None),
    ]
    for method, path, body in calls:
        for query in ("", f"?token={token}&access_token={token}"):
            headers = {} if token is None else bearer(token)
            answer = requests.request(method, scene.runner.url + path + query, json=body, headers=headers, timeout=20)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (method, path)
    right = bearer(run_token_of(STEADY))
    assert requests.get(f"{scene.runner.url}/tasks/{running}", headers=right, timeout=20).status_code == 200
    view = scene.environment.finished(running)
    assert (view["state"], view["attempt"]) == ("succeeded", 1)
    assert len(log.read_text().splitlines()) == 1


# where a runner is


@pytest.fixture(scope="module")
def other_machine() -> Iterator[OtherMachine]:
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(OtherMachine(os.getpid()).running())
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no network of its own can be made here, which needs root and `ip`: {error}")
        yield machine


def test_registration_that_was_overheard_is_worth_nothing_elsewhere_and_leads_nowhere_else(
    scene: Scene, other_machine: OtherMachine, tmp_path: Path
) -> None:
    (tmp_path / "runner_adapter.py").write_text("def run_twice(number: int) -> int:\n    return 2 * number\n")
    environment, discovery = scene.environment, scene.environment.discovery
    with RecordingProxy(discovery.url).listening() as proxy, HonestSender(environment).sending():
        runner = environment.runner(str(tmp_path), "overheard", DISCOVERY_URL=proxy.url, RUNNER_ADAPTER=str(tmp_path))
        environment.wait_offered(runner.start())
        method, path, headers, body = proxy.sent[0]
        forged = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Real-IP": "127.0.0.1"}
        for more in ({}, forged):
            answer = other_machine.call(method, discovery.port, path, {**headers, **more}, body)
            assert (answer[0], answer[1]["code"]) == (403, "host_not_allowed")
        assert runner.stop() == 0
        # From here it is what the runner said itself: of its own address, where nothing listens until it is back.
        again = requests.request(method, discovery.url + path, data=body, headers=headers, timeout=20)
        assert again.status_code == 200
        registered = scene.catalogue()["runners"].values()
        assert [each["host"] for each in registered if each["name"] == "overheard"] == [runner.url]
        waiting = environment.submit("twice", {"number": 4})
        runner.start()
        # Nor does the overheard farewell end the newer process.
        _, left_path, left_headers, _ = next(each for each in proxy.sent if each[0] == "DELETE")
        gone = requests.delete(discovery.url + left_path, headers=left_headers, timeout=20)
        assert (gone.status_code, gone.json()["code"]) == (409, "other_boot")
        view = environment.finished(waiting)
        assert (view["state"], view["result"], view["attempt"]) == ("succeeded", 8, 1)
        runner.stop()


INSIDE = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::1]"]
INSIDE += ["[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "169.254.169.254", "[fd00:ec2::254]", "no-such-name.invalid"]


def test_runner_elsewhere_cannot_lead_the_controller_to_servers_inside(
    scene: Scene, other_machine: OtherMachine
) -> None:
    port = scene.environment.discovery.port
    headers = {**bearer(OWN), "Content-Type": "application/json"}

    def register(host: str) -> tuple[int, Any]:
        body = scene.mallory.registration("mallory", "inside", host=host)
        return other_machine.call("PUT", port, "/runners/mallory-2", headers, json.dumps(body).encode())

    for inside in (*INSIDE, other_machine.here):
        status, answer = register(f"{inside}:{scene.environment.core.port}")
        assert (status, answer["code"]) == (403, "host_not_allowed"), inside
    known = known_as("mallory-2", "mallory", "with a key")
    assert known not in scene.catalogue()["runners"]
    assert register(f"{other_machine.address}:80")[0] == 200
    assert scene.catalogue()["runners"][known]["address"] == other_machine.address
    assert scene.ask("DELETE", "/runners/mallory-2?boot=mallory", OWN).status_code == 204


def _with_names(service: Service, hosts: Path) -> None:
    """Names stand there for what the file says at that moment; that needs root."""
    mounted = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    service.command = ["unshare", "--mount", "sh", "-c", mounted, "sh", *service.command]


def test_controller_connects_to_the_address_that_was_checked_whatever_the_name_stands_for_later(
    tmp_path: Path,
) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, timeout=20).returncode != 0:
        pytest.skip("names of its own need a mount namespace, and that needs root")
    hosts, name, victim_address = tmp_path / "hosts", "flips.test", "127.0.0.2"
    hosts.write_text(f"127.0.0.1 localhost {name}\n")
    environment = Environment(tmp_path, keys=KEY)
    environment.discovery.settings["HOST"] = "0.0.0.0"
    runner = environment.runner("steady")
    runner.settings |= {"ADVERTISE_HOST": f"{name}:{runner.port}", "ALLOWED_HOSTS": name}
    for service in (environment.discovery, environment.core):
        _with_names(service, hosts)
    victim = Mallory(victim_address, runner.port)
    try:
        with victim.listening():
            environment.start()
            runner.start()
            algorithms, headers = f"{environment.core.url}/algorithms", environment.as_admin
            until(lambda: name in requests.get(algorithms, headers=headers, timeout=5).text, "it is known")
            hosts.write_text(f"127.0.0.1 localhost\n{victim_address} {name}\n")
            with HonestSender(environment).sending():
                pass
            assert victim.calls == []
            # What stands for another machine by now cannot be registered anew.
            hosts.write_text(f"127.0.0.1 localhost\n203.0.113.9 {name}\n")
            body = victim.registration("mallory", "mine", host=f"{name}:80")
            url = f"{environment.discovery.url}/runners/mallory-1"
            answer = requests.put(url, json=body, headers=bearer(OWN), timeout=20)
            assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")
            assert "203.0.113.9" in answer.json()["detail"]
    finally:
        environment.stop()


# guessing, other sites, terminals


def test_ten_thousand_guessed_tokens_let_nobody_in_and_slow_nobody_down(scene: Scene) -> None:
    gateway = scene.environment.core
    assert gateway.process is not None
    process, log_size = psutil.Process(gateway.process.pid), gateway.log.stat().st_size
    honest = HonestSender(scene.environment)
    with honest.sending():
        assert asyncio.run(_guess(gateway.url, FIRST_TOKENS)) == {401: FIRST_TOKENS}
        before = process.memory_info().rss
        assert asyncio.run(_guess(gateway.url, MANY_TOKENS)) == {401: MANY_TOKENS}
    assert process.memory_info().rss - before < MOST_MORE_BYTES
    assert gateway.log.stat().st_size - log_size < 64 * 1024, "each guess leaves a line"
    print(f"honest tasks meanwhile: {len(honest.ids)}, taken within {max(honest.seconds):.2f} s")
    assert max(honest.seconds) < MOST_SECONDS


def _send_raw(url: str, request: bytes) -> None:
    """Whatever is answered, if anything is."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), 10) as connection, contextlib.suppress(OSError):
        connection.sendall(request)
        connection.settimeout(2)
        connection.recv(65536)


async def _guess(url: str, count: int) -> Counter[int]:
    guesses = iter(f"ppw_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}" for _ in range(count))
    statuses: Counter[int] = Counter()

    async def guess(client: httpx.AsyncClient) -> None:
        for token in guesses:
            statuses[(await client.get(f"{url}/tasks", headers=bearer(token))).status_code] += 1

    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(guess(client) for _ in range(AT_ONCE)))
    return statuses


def test_page_of_another_site_does_nothing_even_with_a_token(scene: Scene) -> None:
    registration = scene.mallory.registration("mallory", "mine")
    calls = [
        (scene.environment.core.url, "POST", "/tasks", ADMIN_TOKEN, {"algorithm": "square", "payload": {"number": 2}}),
        (scene.environment.core.url, "POST", "/tokens", ADMIN_TOKEN, {"name": "evil", "scopes": ["admin"]}),
        (scene.environment.discovery.url, "PUT", "/runners/mallory-3", OWN, registration),
        (scene.environment.discovery.url, "DELETE", "/owners?runner=steady", KEYS.service_token(), {}),
        (scene.runner.url, "POST", "/run/square", run_token_of(STEADY), {"number": 2}),
    ]
    for url, method, path, token, body in calls:
        for told in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            answer = requests.request(method, url + path, json=body, headers={**bearer(token), **told}, timeout=20)
            assert (answer.status_code, answer.json()["code"]) == (403, "other_site"), (path, told)
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            headers = {**bearer(token), "Content-Type": kind}
            answer = requests.request(method, url + path, data=json.dumps(body), headers=headers, timeout=20)
            assert answer.status_code == 415, (path, kind)
        # A name of his that stands for this machine: refused where only this machine is meant, else of no use.
        answer = requests.request(method, url + path, json=body, headers={"Host": "evil.example"}, timeout=20)
        expected = 401 if url == scene.environment.discovery.url else 421
        assert answer.status_code == expected, path
    assert not any(each.startswith("mallory-3") for each in scene.catalogue()["runners"])
    assert scene.catalogue()["algorithms"]["square"]["owner"] == "steady"


def test_nothing_that_a_stranger_says_commands_a_terminal(scene: Scene, tmp_path: Path) -> None:
    """What is logged of all that is looked at when the scene ends."""
    for text in CONTROLS:
        _say(scene, text)
    evil = "".join(CONTROLS)
    offer = {"name": "mine", "summary": "\u2028next"}
    boot = scene.mallory.registration("mallory", algorithms=[offer], boot=evil[:64])
    assert scene.ask("PUT", "/runners/mallory-4", OWN, boot).status_code == 200
    scene.mallory.tells = {"state": "failed", "error": {"code": evil, "message": evil, "traceback": evil}}
    known = f"{scene.environment.core.url}/algorithms/mine"
    until(lambda: requests.get(known, headers=scene.environment.as_admin, timeout=5).ok, "his algorithm is known")
    task_id = scene.environment.submit("mine", {"text": evil})
    assert scene.environment.finished(task_id)["state"] == "failed"
    dead = requests.get(f"{scene.environment.core.url}/dead", headers=scene.environment.as_admin, timeout=20).json()
    state = {"pid": os.getpid(), "gateway": scene.environment.core.url, "discovery": scene.environment.discovery.url}
    (tmp_path / "environment.json").write_text(json.dumps(state))
    commands = ["send mine {} --wait", f"result {task_id}", "list", "algorithms", "dead list", "token list", "audit"]
    commands += [f"dead show {letter['dead_id']}" for letter in dead["dead_letters"]]
    shown = "".join(_on_a_terminal(tmp_path, scene, "producer", *command.split()) for command in commands)
    for words in (["status"], ["status", "--json"], ["schemas"]):
        shown += _on_a_terminal(tmp_path, scene, "worker", *words, "--data", str(tmp_path))
    assert "mallory" in shown and "evil" in shown
    # The commands colour what they say, and a terminal ends its lines with both characters.
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert _OBEYED.findall(plain) == [], ascii(plain)


def _say(scene: Scene, text: str) -> None:
    """Wherever a stranger can say something."""
    gateway, said = scene.environment.core.url, text.encode()
    for url in (gateway, scene.environment.discovery.url, scene.runner.url):
        _send_raw(url, b"GET /" + said.replace(b"\r\n", b"") + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for header in (b"Authorization: Bearer ", b"Host: ", b"Task-Id: ", b"Content-Type: ", b"X-Request-Id: "):
            _send_raw(url, b"POST /tasks HTTP/1.1\r\n" + header + said + b"\r\nContent-Length: 0\r\n\r\n")
    for part in ("name", "host", "boot"):
        scene.ask("PUT", "/runners/mallory-4", OWN, scene.mallory.registration("mallory", "mine", **{part: text}))
    described = {"name": "mine", "summary": text, "description": text}
    scene.ask("PUT", "/runners/mallory-4", OWN, scene.mallory.registration("mallory", algorithms=[described]))
    scene.ask("PUT", f"/runners/mallory{quote(text)}", OWN, scene.mallory.registration("mallory", "mine"))
    scene.ask("POST", "/algorithms", OWN, {"algorithm": f"mine{text}", "host": scene.mallory.host})
    scene.ask("PUT", "/owners/square", KEYS.service_token(), {"runner": text})
    token = {"name": f"evil{text}", "scopes": ["read"]}
    answer = requests.post(f"{gateway}/tokens", json=token, headers=bearer(ADMIN_TOKEN), timeout=20)
    assert answer.status_code == 422


def _on_a_terminal(folder: Path, scene: Scene, *words: str) -> str:
    """What the command shows to a person."""
    known = {"GATEWAY_URL": scene.environment.core.url, "ADMIN_TOKEN": ADMIN_TOKEN, "PRODUCER_TOKEN": ADMIN_TOKEN}
    variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "RUNNER_KEYS": KEY, **known}
    master, slave = pty.openpty()
    command = [sys.executable, "-P", "-m", *words]
    with subprocess.Popen(command, cwd=folder, env=variables, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        # Linux ends a terminal that nobody has open any more with an error.
        with contextlib.suppress(OSError):
            while part := os.read(master, 65536):
                shown += part
        process.wait(30)
    os.close(master)
    return shown.decode()
