"""The keys of an environment are replaced while tasks are sent all the time, as docs/security.md says it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from environments import Environment, Production, Service, until
from honest_sender import HonestSender
from servers.rabbitmq import RabbitMQ

from runnerlib.contract.identity import RunnerKeys

pytestmark = pytest.mark.timeout(400)

OLD, NEW = "the-old-key-that-nobody-guesses-" + "o" * 11, "the-new-key-that-nobody-guesses-" + "n" * 11


@pytest.fixture(params=["embedded", "rabbitmq4"])
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, broker_servers: Callable[[str], RabbitMQ]
) -> Iterator[Environment]:
    with ExitStack() as stack:
        if request.param == "embedded":
            made = Environment(tmp_path, keys=OLD)
        else:
            broker, name = broker_servers("4"), f"rotation_{os.getpid()}"
            queue_url = broker.add_vhost(name)
            stack.callback(broker.remove_vhost, name)
            made = Production(
                tmp_path, keys=OLD, queue_url=queue_url, database_url=request.getfixturevalue("database_url")
            )
            made.controller()
        stack.callback(made.stop)
        yield made


def test_keys_are_replaced_without_a_task_that_waits_for_it_or_fails(environment: Environment) -> None:
    replicas = [environment.runner("steady") for _ in range(2)]
    services = [service for service in environment.services if service not in replicas]
    environment.start()
    for replica in replicas:
        environment.wait_offered(replica.start())
    honest = HonestSender(environment)
    with honest.sending(at_least=100):
        for keys in (f"{OLD},{NEW}", f"{NEW},{OLD}"):
            _use(environment, services, keys)
        for replica in replicas:
            replica.settings["RUNNER_TOKEN"] = RunnerKeys.read(NEW).runner_token("steady")
            _restart(environment, replica)
        _use(environment, services, NEW)
        assert len(_key_ids(environment)) == 1
    print(f"{len(honest.ids)} tasks were sent meanwhile")
    # The old key is worth nothing any more.
    for token in (RunnerKeys.read(OLD).service_token(), RunnerKeys.read(OLD).runner_token("steady")):
        headers = {"Authorization": f"Bearer {token}"}
        assert requests.get(f"{environment.discovery.url}/algorithms", headers=headers, timeout=20).status_code == 401


def _use(environment: Environment, services: list[Service], keys: str) -> None:
    """Each service in turn is started anew with these keys."""
    environment.keys = keys
    for service in services:
        service.settings["RUNNER_KEYS"] = keys
        _restart(environment, service)


def _restart(environment: Environment, service: Service) -> None:
    """Returns when it works again, and a runner gets tasks."""
    assert service.stop() == 0
    service.start()
    # Else it would show when leases are over, and that is later than these tasks.
    for each in environment.services:
        assert _lets_in(environment, each), f"discovery does not know {each.name} any more"
    if "RUNNER_TOKEN" in service.settings:
        wanted = RunnerKeys.read(NEW).runner_of(service.settings["RUNNER_TOKEN"])
        assert wanted is not None
        until(lambda: _key_of(environment, service) == wanted.key_id, "it has registered with its new token")
        environment.wait_offered(service)


def _lets_in(environment: Environment, service: Service) -> bool:
    """Whether discovery knows the process by what it was started with."""
    token = service.settings.get("RUNNER_TOKEN") or RunnerKeys.read(service.settings["RUNNER_KEYS"]).service_token()
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{environment.discovery.url}/algorithms", headers=headers, timeout=20).ok


def _key_of(environment: Environment, runner: Service) -> str:
    runners = requests.get(f"{environment.discovery.url}/runners", headers=environment.as_service, timeout=5).json()
    return next((str(each["key_id"]) for each in runners if each["host"] == runner.url), "")


def _key_ids(environment: Environment) -> set[str]:
    runners = requests.get(f"{environment.discovery.url}/runners", headers=environment.as_service, timeout=5).json()
    return {each["key_id"] for each in runners}
