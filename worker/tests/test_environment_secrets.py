"""Keys and tokens of an environment: given by its operator, or made in its data folder."""

import stat
from pathlib import Path

import pytest

from runnerlib.contract.identity import RunnerKeys
from worker.environment_secrets import open_secrets, service_token
from worker.errors import BadSecrets
from worker.plan import EnvironmentSecrets
from worker.settings import WorkerSettings

KEY = "k" * 40


def opened(
    data: Path, environment: dict[str, str] | None = None, show: bool = True, **settings: str
) -> tuple[EnvironmentSecrets, str]:
    said: list[str] = []
    settled = WorkerSettings(**settings)  # type: ignore[arg-type]
    found = open_secrets(settled, data, environment or {}, said.append, show=show)
    return found, " ".join(said)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNNER_KEYS", "RUNNER_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("settings", [{}, {"host": "::1"}, {"host": "0.0.0.0", "auth": "none"}])
def test_nothing_is_made_where_nobody_is_asked_for_anything(tmp_path: Path, settings: dict[str, str]) -> None:
    assert opened(tmp_path, **settings) == (EnvironmentSecrets(), "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [{"auth": "tokens"}, {"host": "0.0.0.0"}, {"host": "192.0.2.1"}])
def test_secrets_are_made_once_and_nobody_else_can_read_them(tmp_path: Path, settings: dict[str, str]) -> None:
    made, said = opened(tmp_path, **settings)
    folder = tmp_path / "secrets"
    admin = (folder / "admin-token").read_text().strip()
    assert admin in said and len(admin) >= 32
    assert made.of_gateway == {"ADMIN_TOKEN_FILE": str(folder / "admin-token")}
    assert made.of_services == {"RUNNER_KEYS_FILE": str(folder / "runner-keys")}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())] == [0o700, 0o600, 0o600]
    again, said = opened(tmp_path, **settings)
    assert (again.of_services, again.service_token, said) == (made.of_services, made.service_token, "")
    assert service_token(tmp_path) == made.service_token != ""


def test_token_does_not_get_into_a_log(tmp_path: Path) -> None:
    _, said = opened(tmp_path, auth="tokens", show=False)
    assert "secrets/admin-token" in said
    assert (tmp_path / "secrets" / "admin-token").read_text().strip() not in said


def test_each_runner_gets_a_token_with_its_name(tmp_path: Path) -> None:
    made, _ = opened(tmp_path, auth="tokens")
    assert made.keys is not None
    assert made.of_runner("text") == {"RUNNER_TOKEN": made.keys.runner_token("text")}
    assert EnvironmentSecrets().of_runner("text") == {}


def test_what_the_operator_gives_is_used_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"RUNNER_KEYS": KEY, "ADMIN_TOKEN_FILE": "/run/secrets/admin", "METRICS_TOKEN": "m" * 40}
    found, said = opened(tmp_path, given, host="0.0.0.0")
    assert found.service_token == RunnerKeys([KEY]).service_token()
    assert found.of_services == {"RUNNER_KEYS": KEY, "METRICS_TOKEN": "m" * 40}
    assert found.of_gateway == {"ADMIN_TOKEN_FILE": "/run/secrets/admin"}
    assert (said, list(tmp_path.iterdir())) == ("", [])
    monkeypatch.setenv("RUNNER_KEYS", KEY)
    assert service_token(tmp_path) == found.service_token


def test_keys_that_cannot_be_used_are_named_and_not_shown(tmp_path: Path) -> None:
    for variables in ({"RUNNER_KEYS": "hush"}, {"RUNNER_KEYS_FILE": str(tmp_path / "missing")}):
        with pytest.raises(BadSecrets, match="RUNNER_KEYS_FILE") as caught:
            opened(tmp_path, variables)
        assert "hush" not in str(caught.value)
