"""What an environment consists of."""

import sys
from dataclasses import replace
from pathlib import Path

from runnerlib.contract.identity import RunnerKeys
from worker.plan import MARK, EnvironmentSecrets, Layout
from worker.runners import RunnerFolder
from worker.settings import WorkerSettings, without_servers

TEXT = RunnerFolder("text", Path("/somewhere/text"), 1)


def _layout(**settings: object) -> Layout:
    return Layout(WorkerSettings(**settings), Path("/data"), "json", {"HOME": "/root", "PORT": "1"})  # type: ignore[arg-type]


def test_each_process_has_its_own_port_and_a_setting_for_it() -> None:
    layout = _layout(gateway_port=9000, runner_ports_start=9100)
    assert [(use.port, use.setting) for use in layout.ports([TEXT])] == [
        (8010, "DISCOVERY_PORT"),
        (9000, "GATEWAY_PORT"),
        (9101, "RUNNER_PORTS_START"),
    ]


def test_runner_is_started_in_its_folder_by_its_own_python() -> None:
    plan = _layout().runner(TEXT, Path("/venv/bin/python"))
    assert plan.command == ("/venv/bin/python", "-P", "-m", "runnerlib")
    assert plan.folder == TEXT.path
    assert plan.url == "http://127.0.0.1:8102"
    assert plan.environment["PORT"] == "8102"


def test_variables_of_one_runner_reach_that_one_alone() -> None:
    layout = replace(_layout(), runner_variables={"text": {"FETCH_ALLOW_PRIVATE": "127.0.0.0/8"}})
    assert layout.runner(TEXT, Path("/venv/bin/python")).environment["FETCH_ALLOW_PRIVATE"] == "127.0.0.0/8"
    other = layout.runner(replace(TEXT, name="nlp"), Path("/venv/bin/python"))
    for plan in (other, layout.discovery(), *layout.services()):
        assert "FETCH_ALLOW_PRIVATE" not in plan.environment


def test_a_runner_s_own_variables_win_over_inherited_ones_and_not_over_what_makes_it_a_part_of_the_environment() -> (
    None
):
    own = {"HOME": "/own", "DEVICE": "cuda:1", "LOG_LEVEL": "DEBUG", "PORT": "1", "DISCOVERY_URL": "http://elsewhere"}
    plan = _layout().runner(TEXT, Path("/venv/bin/python"), variables=own)
    shown = {name: plan.environment[name] for name in own}
    assert shown == own | {"PORT": "8102", "DISCOVERY_URL": "http://127.0.0.1:8010"}
    assert "DEVICE" not in _layout().services()[0].environment


def test_children_end_with_the_worker_and_carry_its_mark() -> None:
    for plan in (_layout().discovery(), *_layout().services(), _layout().runner(TEXT, Path(sys.executable))):
        assert plan.environment["EXIT_WITH_PARENT"] == "true"
        assert plan.environment[MARK] == "/data"
        assert plan.environment["HOME"] == "/root"


def test_services_are_never_kept_waiting_for_more_than_five_seconds() -> None:
    plans = [_layout().discovery(), *_layout().services(), *_with_broker().services()]
    assert {plan.most_delay_seconds for plan in plans} == {5}


def test_address_that_means_everywhere_is_reached_on_this_machine() -> None:
    assert _layout(host="0.0.0.0").gateway_url == "http://127.0.0.1:8000"
    assert _layout(host="::1").gateway_url == "http://[::1]:8000"


def test_with_a_broker_controller_and_gateway_are_processes_of_their_own() -> None:
    layout = _with_broker()
    assert [plan.name for plan in layout.services()] == ["controller", "gateway"]
    assert [plan.url for plan in layout.services()] == ["http://127.0.0.1:8020", layout.gateway_url]
    assert ("CONTROLLER_PORT", 8020) in [(use.setting, use.port) for use in layout.ports([])]
    assert [plan.name for plan in _layout().services()] == ["core"]


def test_passwords_are_told_to_those_alone_who_need_them_and_on_no_command_line() -> None:
    layout = _with_broker(QUEUE_URL="amqp://inherited:hush@broker/", DATABASE_URL="postgresql://me:hush@db/x")
    for plan in layout.services():
        assert plan.environment["QUEUE_URL"] == "amqp://me:hush@broker/"
        assert plan.environment["DATABASE_URL"] == "postgresql://me:hush@database/tasks"
    for plan in (layout.discovery(), layout.runner(TEXT, Path(sys.executable))):
        assert "hush" not in str(plan.environment)
    for plan in (*layout.services(), layout.discovery(), layout.runner(TEXT, Path(sys.executable))):
        assert "hush" not in str(plan.command)


def test_tokens_reach_the_gateway_alone() -> None:
    tokens = {"ADMIN_TOKEN": "hush"}
    for layout in (_layout(), _with_broker()):
        told = replace(layout, secrets=EnvironmentSecrets(of_gateway=tokens))
        assert tokens.items() <= told.services()[-1].environment.items()
        for plan in (told.discovery(), told.runner(TEXT, Path(sys.executable)), *told.services()[:-1]):
            assert plan.environment.keys().isdisjoint(tokens)


def test_keys_reach_services_and_each_runner_gets_a_token_with_its_own_name() -> None:
    keys = RunnerKeys(["k" * 40])
    for layout in (_layout(), _with_broker()):
        told = replace(layout, secrets=EnvironmentSecrets(keys, {"RUNNER_KEYS_FILE": "/keys"}, {}))
        for plan in (told.discovery(), *told.services()):
            assert plan.environment["RUNNER_KEYS_FILE"] == "/keys"
            assert "RUNNER_TOKEN" not in plan.environment
        runner = told.runner(TEXT, Path(sys.executable)).environment
        assert runner["RUNNER_TOKEN"] == keys.runner_token("text")
        assert "RUNNER_KEYS_FILE" not in runner


SECRETS_OF_OTHERS = [
    "PGPASSWORD",
    "PGPASSFILE",
    "RABBITMQ_DEFAULT_PASS",
    "RABBITMQ_PASSWORD",
    "POSTGRES_PASSWORD",
    "QUEUE_URL",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "GITHUB_TOKEN",
    "HF_TOKEN",
    "CI_JOB_TOKEN_FILE",
    "AWS_SECRET_ACCESS_KEY",
    "UV_INDEX_OURS_PASSWORD",
    "my_secret",
    "APITOKEN",
    "DB_PASSWD",
]
NO_SECRETS = ["HOME", "PATH", "TOKENIZERS_PARALLELISM", "OPTION_TOKEN_COUNT_SLOTS", "CUDA_VISIBLE_DEVICES", "PAGER"]


def test_runners_inherit_no_secrets_of_others() -> None:
    inherited = dict.fromkeys(SECRETS_OF_OTHERS + NO_SECRETS, "hush")
    for layout in (_layout(), _with_broker()):
        runner = replace(layout, inherited=inherited).runner(TEXT, Path(sys.executable))
        assert set(SECRETS_OF_OTHERS) & runner.environment.keys() == set()
        assert set(NO_SECRETS) <= runner.environment.keys()
    own = replace(_layout(), inherited=inherited).runner(TEXT, Path(sys.executable), variables={"HF_TOKEN": "own"})
    assert own.environment["HF_TOKEN"] == "own"


def test_installing_a_runner_s_packages_inherits_the_passwords_of_indexes_and_not_those_of_our_servers() -> None:
    found = without_servers(dict.fromkeys(SECRETS_OF_OTHERS, "hush"))
    assert {"UV_INDEX_OURS_PASSWORD", "GITHUB_TOKEN"} <= found.keys()
    assert not {"PGPASSWORD", "RABBITMQ_DEFAULT_PASS", "QUEUE_URL", "DATABASE_URL_FILE"} & found.keys()


def _with_broker(**inherited: str) -> Layout:
    settings = WorkerSettings(database_url="postgresql://me:hush@database/tasks")
    return Layout(settings, Path("/data"), "json", inherited, "amqp://me:hush@broker/")
