"""The operator's variables."""

import pytest

from runnerlib.fetching.addresses import FetchRules
from runnerlib.settings import RunnerSettings, option_overrides


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NAME", "HOST", "PORT", "DISCOVERY_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_first_published_variables_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_NAME", "nlp")
    monkeypatch.setenv("RUNNER_DISCOVERY_CONTAINER_NAME", "runner-discovery")
    monkeypatch.setenv("RUNNER_DISCOVERY_PORT", "8001")
    settings = RunnerSettings()
    assert (settings.name, settings.container_name, settings.port) == ("nlp", "nlp", 8100)
    assert settings.discovery == "http://runner-discovery:8001"


def test_a_name_of_our_own_goes_before_the_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "my-laptop")
    monkeypatch.setenv("RUNNER_NAME", "nlp")
    assert RunnerSettings().name == "nlp"


def test_no_discovery_is_no_registration() -> None:
    assert RunnerSettings().discovery == ""


def test_a_discovery_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_URL", "http://there:1/")
    monkeypatch.setenv("RUNNER_DISCOVERY_CONTAINER_NAME", "here")
    assert RunnerSettings().discovery == "http://there:1"


def test_only_options_override_options() -> None:
    assert option_overrides({"OPTION_X_BATCH": "2", "PATH": "/bin"}) == {"OPTION_X_BATCH": "2"}


def test_what_may_be_fetched_is_read_once_and_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RunnerSettings().fetch_rules == FetchRules()
    monkeypatch.setenv("FETCH_ALLOW_PRIVATE", "127.0.0.0/8, ::1")
    monkeypatch.setenv("FETCH_PORTS", "8080")
    monkeypatch.setenv("FETCH_MAX_BYTES", "7")
    monkeypatch.setenv("FETCH_TIMEOUT_SECONDS", "0.5")
    rules = RunnerSettings().fetch_rules
    assert (rules.max_bytes, rules.timeout_seconds, rules.addresses.ports) == (7, 0.5, frozenset({8080}))
    assert not rules.addresses.refuses_address("127.0.0.1")
    monkeypatch.setenv("FETCH_PORTS", "http")
    with pytest.raises(ValueError, match="'http' is not a port"):
        RunnerSettings()


@pytest.mark.parametrize(
    ("host", "allowed", "advertised", "names"),
    [
        ("127.0.0.1", "", "", []),
        ("127.0.0.1", "a.example, B.example,", "", ["a.example", "B.example"]),
        ("127.0.0.1", "", "runner.test:80", ["runner.test"]),
        ("0.0.0.0", "", "runner.test:80", []),
        ("0.0.0.0", "a.example", "http://[fd00::1]:80", ["a.example", "fd00::1"]),
    ],
)
def test_a_runner_knows_itself_by_the_address_that_it_registers(
    host: str, allowed: str, advertised: str, names: list[str]
) -> None:
    assert RunnerSettings(host=host, allowed_hosts=allowed, advertise_host=advertised).host_names == names
