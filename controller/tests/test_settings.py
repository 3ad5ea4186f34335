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


def test_controller_on_sqlite_exits_and_names_worker_up():
    done = subprocess.run([sys.executable, "-m", "controller"], capture_output=True, text=True, timeout=60, env={})
    assert done.returncode == 2
    assert "worker up" in done.stderr


def test_controller_on_another_store_says_that_it_is_not_available_yet():
    environment = {"DATABASE_URL": "postgresql://x/y", "QUEUE_URL": "amqp://z"}
    done = subprocess.run(
        [sys.executable, "-m", "controller"], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 2
    assert "Only SQLite is available yet" in done.stderr
