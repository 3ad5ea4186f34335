"""Settings, and starting where no process of its own is possible."""

import subprocess
import sys

import pytest

from controller.settings import ControllerSettings


def test_steps_are_read_with_commas_and_as_a_list(monkeypatch):
    for text in ("0.1,2, 30", "[0.1, 2, 30]"):
        monkeypatch.setenv("RETRY_STEPS_SECONDS", text)
        assert ControllerSettings().retry_steps_seconds == (0.1, 2.0, 30.0)


def test_defaults_are_those_of_the_protocol(monkeypatch):
    for name in ("RETRY_STEPS_SECONDS", "RETENTION_DAYS", "UNKNOWN_ALGORITHM_GRACE_SECONDS", "PORT"):
        monkeypatch.delenv(name, raising=False)
    settings = ControllerSettings()
    assert settings.retry_steps_seconds == (1.0, 5.0, 30.0, 120.0, 600.0)
    assert (settings.retention_days, settings.unknown_algorithm_grace_seconds, settings.port) == (7, 600, 8020)


@pytest.mark.parametrize("text", ["", "x", "-1", "1,,x"])
def test_bad_steps_are_refused(monkeypatch, text):
    monkeypatch.setenv("RETRY_STEPS_SECONDS", text)
    if text:
        with pytest.raises(ValueError, match="retry_steps_seconds"):
            ControllerSettings()
    else:
        assert ControllerSettings().retry_steps_seconds


def started(**environment):
    return subprocess.run(
        [sys.executable, "-m", "controller"], capture_output=True, text=True, timeout=60, env=environment
    )


@pytest.mark.parametrize("environment", [{}, {"DATABASE_URL": "sqlite:///tasks.sqlite"}])
def test_controller_on_sqlite_exits_and_names_worker_up(environment):
    done = started(**environment)
    assert done.returncode == 2
    assert "worker up" in done.stderr


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"DATABASE_URL": "postgresql://u:secret@h/d"}, "A queue in PostgreSQL is not offered"),
        ({"QUEUE_URL": "amqp://u:secret@h"}, "needs its store in PostgreSQL"),
        ({"QUEUE_URL": "amqp://u:secret@h", "DATABASE_URL": "sqlite:///x"}, "needs its store in PostgreSQL"),
        ({"QUEUE_URL": "redis://u:secret@h", "DATABASE_URL": "postgresql://h/d"}, "QUEUE_URL must name a RabbitMQ"),
        ({"QUEUE_URL": "amqp://h", "DATABASE_URL": "mysql://u:secret@h/d"}, "DATABASE_URL must name a PostgreSQL"),
        ({"RABBITMQ_HOST": "h", "QUEUE_NAME": "mine", "DATABASE_URL": "postgresql://h/d"}, "QUEUE_NAME can only be"),
    ],
)
def test_combination_that_is_not_offered_exits_with_a_sentence_and_no_password(environment, sentence):
    done = started(**environment)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_url_that_cannot_be_used_ends_the_start_with_a_sentence_and_no_password():
    done = started(PORT="0", QUEUE_URL="amqp://u:secret@h?nonsense=1", DATABASE_URL="postgresql://h/d")
    assert done.returncode == 1
    assert "nonsense" in done.stderr + done.stdout
    assert "secret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_names_of_the_original_pattern_are_understood():
    settings = ControllerSettings(
        rabbitmq_host="broker",
        queue_name="tasks",
        runner_discovery_container_name="discovery",
        runner_discovery_port=81,
    )
    assert settings.queue == "amqp://guest:guest@broker:5672/"
    assert settings.discovery == "http://discovery:81"
    assert ControllerSettings(queue_url="amqp://other", rabbitmq_host="broker").queue == "amqp://other"
    assert ControllerSettings(discovery_url="http://d", runner_discovery_container_name="x").discovery == "http://d"
