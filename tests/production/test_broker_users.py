"""The broker's users of `deploy/`: each may do what it is for, and nothing else."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
import pytest
from environments import Production, until
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from servers.fixtures import BROKER_VERSIONS
from servers.postgresql import PostgreSQL
from servers.rabbitmq import RabbitMQ

from producer import TaskClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
NAMES = ("plugplay", "controller", "gateway", "sender")
ACCESS_REFUSED = 403


class Users:
    """Those that build.sh makes, on a virtual host of a broker that runs."""

    def __init__(self, broker: RabbitMQ, vhost: str) -> None:
        self._broker, self._vhost = broker, quote(vhost, safe="")
        #: the names of others' tests are their own
        self._mark = secrets.token_hex(3)
        self._passwords = {name: secrets.token_hex(16) for name in NAMES}
        command = [sys.executable, str(ROOT / "deploy" / "derive_secrets.py"), "definitions"]
        given = "".join(f"{name} {password}\n" for name, password in self._passwords.items())
        made = subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
        assert not any(password in made for password in self._passwords.values())
        self._definitions = json.loads(made)

    def add(self) -> None:
        for user in self._definitions["users"]:
            body = {**user, "tags": ",".join(user["tags"])}
            self._broker.management("PUT", f"users/{user['name']}-{self._mark}", body)
        for rights in self._definitions["permissions"]:
            body = {kind: rights[kind] for kind in ("configure", "write", "read")}
            self._broker.management("PUT", f"permissions/{self._vhost}/{rights['user']}-{self._mark}", body)

    def remove(self) -> None:
        for name in NAMES:
            self._broker.management("DELETE", f"users/{name}-{self._mark}")

    def url(self, name: str) -> str:
        return f"amqp://{name}-{self._mark}:{self._passwords[name]}@127.0.0.1:{self._broker.port}/{self._vhost}"


@pytest.fixture(scope="module", params=BROKER_VERSIONS, ids=[f"rabbitmq{major}" for major in BROKER_VERSIONS])
def made(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    broker_servers: Callable[[str], RabbitMQ],
    postgres_server: PostgreSQL,
) -> Iterator[tuple[Production, Users]]:
    """An environment whose controller and gateway have their users, with two runners."""
    broker, name = broker_servers(request.param), f"users_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        queue_url = broker.add_vhost(name)
        stack.callback(broker.remove_vhost, name)
        users = Users(broker, name)
        stack.callback(users.remove)
        users.add()
        database_url = postgres_server.create_database(name)
        stack.callback(postgres_server.drop_database, name)
        production = Production(tmp_path_factory.mktemp(name), queue_url=queue_url, database_url=database_url)
        stack.callback(production.stop)
        production.core.settings["QUEUE_URL"] = users.url("gateway")
        production.controller(QUEUE_URL=users.url("controller"))
        yield production.start("steady", "troublemaker"), users


@pytest.fixture
def production(made: tuple[Production, Users]) -> Production:
    return made[0]


@pytest.fixture
def users(made: tuple[Production, Users]) -> Users:
    return made[1]


def ran(command: list[str], queue_url: str) -> dict[str, Any]:
    """The answer that an example prints."""
    asked = {"QUEUE_URL": queue_url, "ALGORITHM": "square", "PAYLOAD": '{"number": 11}'}
    environment = {"PATH": os.environ["PATH"], **asked}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def test_gateway_and_controller_do_all_that_they_are_for(production: Production) -> None:
    ids = [production.submit("square", {"number": 12}), production.submit("flaky", {})]
    square, flaky = (production.finished(task_id) for task_id in ids)
    assert (square["state"], square["result"]) == ("succeeded", 144)
    # Before it is tried again it waits in a queue of the broker.
    assert flaky["state"] == "failed"
    assert flaky["attempt"] > 1


def test_sender_gets_an_answer_with_the_example_of_python(production: Production, users: Users) -> None:
    answer = ran([sys.executable, str(EXAMPLES / "send_with_pika.py")], users.url("sender"))
    assert (answer["state"], answer["result"]) == ("succeeded", 121)
    assert production.task(answer["id"])["result"] == 121


def test_sender_gets_an_answer_with_the_example_of_node(users: Users, amqplib: Path) -> None:
    script = amqplib / "send.mjs"
    shutil.copy(EXAMPLES / "send.mjs", script)
    answer = ran(["node", str(script)], users.url("sender"))
    assert (answer["state"], answer["result"]) == ("succeeded", 121)


def test_sender_submits_with_our_client(production: Production, users: Users) -> None:
    with TaskClient(production.core.url, queue_url=users.url("sender")) as client:
        ids = client.submit_many(("square", {"number": number}) for number in range(40))
        assert [task.result for task in client.wait_many(ids, timeout_seconds=60)] == [n * n for n in range(40)]


def test_task_of_an_algorithm_without_a_queue_comes_to_the_ingress_queue(production: Production, users: Users) -> None:
    with channel_of(users.url("sender")) as channel:
        channel.confirm_delivery()
        # A message that no queue takes would come back, and raise.
        body = b'{"algorithm": "sqare", "payload": {"number": 3}}'
        properties = pika.BasicProperties(message_id="misspelt", delivery_mode=2)
        channel.basic_publish("tasks", "sqare", body, properties, mandatory=True)
        channel.basic_publish("tasks-unrouted", "", b"{", pika.BasicProperties(message_id="broken"), mandatory=True)
    rows = "SELECT state FROM tasks WHERE id = 'broken'"
    until(lambda: production.rows(rows) == [("failed",)], "the ingress consumer has judged it")


@contextmanager
def channel_of(url: str) -> Iterator[BlockingChannel]:
    """A channel of a connection of its own."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


def sent_to(exchange: str, key: str) -> Callable[[BlockingChannel], object]:
    """Publishes, and waits for the broker's word."""

    def act(channel: BlockingChannel) -> None:
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, b"{}", pika.BasicProperties(delivery_mode=2))

    return act


Act = Callable[[BlockingChannel], object]
READS: dict[str, Act] = {
    "gets a task": lambda channel: channel.basic_get("tasks.square"),
    "consumes tasks": lambda channel: channel.basic_consume("tasks.square", lambda *_: None),
    "consumes from the ingress queue": lambda channel: channel.basic_consume("tasks", lambda *_: None),
    "binds a queue": lambda channel: channel.queue_bind("tasks.square", "tasks", "other"),
    "empties a queue": lambda channel: channel.queue_purge("tasks.square"),
}
CHANGES: dict[str, Act] = {
    "deletes a queue": lambda channel: channel.queue_delete("tasks.square"),
    "deletes the exchange": lambda channel: channel.exchange_delete("tasks"),
    "declares a queue": lambda channel: channel.queue_declare("tasks.mine", durable=True),
    "declares a queue without a name": lambda channel: channel.queue_declare("", exclusive=True),
    "declares an exchange": lambda channel: channel.exchange_declare("tasks-mine"),
}
WRITES: dict[str, Act] = {
    "writes to every queue": sent_to("", "tasks.square"),
    "writes to the waiting ones": sent_to("tasks-retry.5s", "square"),
    "writes dead letters": sent_to("tasks-broker-dead", ""),
    "writes to another exchange": sent_to("amq.topic", "square"),
}
OTHERS: dict[str, Act] = {
    "declares a queue of others": lambda channel: channel.queue_declare("other", durable=True),
    "reads a queue of others": lambda channel: channel.basic_get("theirs"),
    "deletes a queue of others": lambda channel: channel.queue_delete("theirs"),
    "writes to another exchange": sent_to("amq.topic", "square"),
}
REFUSED = {
    "sender": {**READS, **CHANGES, **WRITES},
    "gateway": {**READS, **CHANGES, **WRITES, "writes to the ingress queue": sent_to("tasks-unrouted", "")},
    "controller": OTHERS,
}


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, acts in REFUSED.items() for what in acts])
def test_what_a_user_is_not_for_is_refused(production: Production, users: Users, name: str, what: str) -> None:
    with channel_of(production.queue_url) as channel:
        channel.queue_declare("theirs", durable=True)
    with channel_of(users.url(name)) as channel, pytest.raises(ChannelClosedByBroker) as error:
        REFUSED[name][what](channel)
    assert error.value.reply_code == ACCESS_REFUSED


def test_sender_may_ask_whether_the_queue_is_there(users: Users) -> None:
    with channel_of(users.url("sender")) as channel:
        assert channel.queue_declare("tasks", passive=True).method.queue == "tasks"
