from pathlib import Path

import pytest
from pydantic import AliasChoices, Field, ValidationError

from runnerlib.service.settings import ServiceSettings, load_settings


class Sample(ServiceSettings):
    port: int = Field(default=8010, ge=0, le=65535, validation_alias=AliasChoices("PORT", "SAMPLE_PORT"))
    queue_name: str = Field(description="Needed.")
    api_token: int = 0
    names: list[str] = Field(default_factory=list)
    place: Path = Path("a/b")


def test_variables_are_upper_case_names_without_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_NAME", "tasks")
    monkeypatch.setenv("SAMPLE_PORT", "9000")
    monkeypatch.setenv("GRACE_SECONDS", "1.5")
    monkeypatch.setenv("EXIT_WITH_PARENT", "true")
    settings = load_settings(Sample)
    assert (settings.queue_name, settings.port, settings.grace_seconds) == ("tasks", 9000, 1.5)
    assert settings.exit_with_parent is True
    assert settings.host == "127.0.0.1"


def test_level_and_format_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("LOG_FORMAT", "JSON")
    settings = load_settings(ServiceSettings)
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")


def test_an_empty_variable_is_as_if_it_was_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    assert load_settings(ServiceSettings).port == 0


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ServiceSettings().port = 5


def test_each_bad_variable_gets_one_sentence_and_the_exit_code_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMPLE_PORT", "99999")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as stopped:
        load_settings(Sample)
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(lines) == 3
    assert any(line.startswith("SAMPLE_PORT has a value '99999'") for line in lines)
    assert any(line.startswith("LOG_LEVEL has a value 'LOUD'") and "'INFO'" in line for line in lines)
    assert "QUEUE_NAME is not set; set this environment variable." in lines


def test_a_secret_value_is_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("QUEUE_NAME", "tasks")
    monkeypatch.setenv("API_TOKEN", "very-hidden")
    with pytest.raises(SystemExit):
        load_settings(Sample)
    text = capsys.readouterr().err
    assert "API_TOKEN has a value that cannot be used" in text
    assert "very-hidden" not in text


def test_a_list_that_is_not_json_is_told_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUEUE_NAME", "tasks")
    monkeypatch.setenv("NAMES", "[broken")
    with pytest.raises(SystemExit) as stopped:
        load_settings(Sample)
    assert stopped.value.code == 2
    assert "NAMES" in capsys.readouterr().err.upper()
