"""What clients in any language get that know nothing but the queue's name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pika
import pytest
from environments import until

from producer import TaskClient

pytestmark = pytest.mark.timeout(240)

#: Tasks of `tenant_call`: five seconds for its two slots.
BACKLOG = 100
EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"


def ask(url: str, body: dict[str, Any], seconds: float = 60) -> tuple[dict[str, Any], str | None]:
    """Publishes to the ingress queue and waits on a reply queue of its own; the answer and its correlation id."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        answers = channel.queue_declare("", exclusive=True).method.queue
        properties = pika.BasicProperties(reply_to=answers, correlation_id="c-7")
        channel.basic_publish("", "tasks", json.dumps(body).encode(), properties)
        for method, its_properties, content in channel.consume(answers, auto_ack=True, inactivity_timeout=seconds):
            assert method is not None, f"no answer within {seconds} s"
            return json.loads(content), its_properties.correlation_id
    raise AssertionError("no answer")


def test_five_lines_of_pika_get_an_answer_and_the_store_keeps_it(production: Any) -> None:
    answer, correlation_id = ask(production.queue_url, {"algorithm": "square", "payload": {"number": 12}})
    assert correlation_id == "c-7"
    assert (answer["algorithm"], answer["state"], answer["result"]) == ("square", "succeeded", 144)
    view = production.task(answer["id"])
    assert (view["state"], view["result"]) == ("succeeded", 144)


def test_sender_without_a_reply_queue_finds_its_result_in_the_store_under_its_message_id(production: Any) -> None:
    production.publish(b'{"algorithm": "square", "payload": {"number": 5}}', message_id="mine-1")
    row = until(
        lambda: production.rows("SELECT state, result FROM tasks WHERE id = 'mine-1'"), "the result is in the store"
    )
    assert row == [("succeeded", b"25")]
    assert production.task("mine-1")["result"] == 25


def test_direct_reply_to_is_answered(production: Any) -> None:
    with pika.BlockingConnection(pika.URLParameters(production.queue_url)) as connection:
        channel = connection.channel()
        got: list[bytes] = []
        channel.basic_consume("amq.rabbitmq.reply-to", lambda *all_of: got.append(all_of[3]), auto_ack=True)
        properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="c-1")
        channel.basic_publish("", "tasks", b'{"algorithm": "square", "payload": {"number": 3}}', properties)
        until(lambda: connection.process_data_events(0.05) or got, "the answer came", 20)
    assert json.loads(got[0])["result"] == 9


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed"),
        (b'{"algorithm": "square", "payload": {"number": 1}, "callback_url": "x"}', "malformed"),
        (b'{"algorithm": "square", "payload": {"number": "many"}}', "invalid_payload"),
    ],
)
def test_bad_message_is_answered_and_leaves_a_dead_letter_with_its_bytes(
    production: Any, body: bytes, code: str
) -> None:
    task_id = f"bad-{len(body)}"
    with pika.BlockingConnection(pika.URLParameters(production.queue_url)) as connection:
        channel = connection.channel()
        answers = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", "tasks", body, pika.BasicProperties(reply_to=answers, message_id=task_id))
        _, _, content = next(channel.consume(answers, auto_ack=True, inactivity_timeout=20))
    answer = json.loads(content)
    assert (answer["id"], answer["state"], answer["error"]["code"]) == (task_id, "failed", code)
    assert production.rows(f"SELECT code, body FROM dead_letters WHERE task_id = '{task_id}'") == [(code, body)]


def test_tasks_of_an_algorithm_that_comes_later_wait_for_it(production_on: Any, broker: Any, database_url: str) -> None:
    production = production_on(broker.url, database_url).start()
    production.publish(b'{"algorithm": "square", "payload": {"number": 4}}', message_id="early")
    runner = production.runner("steady").start()
    production.wait_offered(runner)
    until(lambda: production.rows("SELECT result FROM tasks WHERE id = 'early'") == [(b"16",)], "it was served")


def test_python_example_runs_as_it_stands(production: Any) -> None:
    _run_example([sys.executable, str(EXAMPLES / "send_with_pika.py")], production.queue_url, {})


def test_node_gets_an_answer(production: Any, amqplib: Path) -> None:
    script = amqplib / "send.mjs"
    shutil.copy(EXAMPLES / "send.mjs", script)
    _run_example(["node", str(script)], production.queue_url, {})


def test_message_with_a_group_passes_what_waits_in_the_broker(
    production_on: Any, broker: Any, database_url: str
) -> None:
    production = production_on(broker.url, database_url).start("tenants")
    with TaskClient(production.core.url, queue_url=broker.url) as client:
        backlog = client.submit_many([("tenant_call", {})] * BACKLOG)
        mine = client.submit("tenant_call", {}, group="mine")
        began = client.result(mine, 60)
        ended = [view.result for view in client.wait_many(backlog, 60)]
    behind = sum(other > began for other in ended)
    print(f"{behind} of {BACKLOG} began later than the one with a group")
    assert behind > BACKLOG / 2


def _run_example(command: list[str], queue_url: str, more: dict[str, str]) -> None:
    """Examples take what to send from ALGORITHM and PAYLOAD, and print the answer."""
    asked = {"QUEUE_URL": queue_url, "ALGORITHM": "square", "PAYLOAD": '{"number": 11}'}
    done = subprocess.run(
        command, env={"PATH": os.environ["PATH"], **asked, **more}, capture_output=True, text=True, timeout=40
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert (answer["state"], answer["result"]) == ("succeeded", 121)
