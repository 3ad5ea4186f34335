"""One environment in containers for all of these tests. It takes minutes to build, so: only with CONTAINER_TESTS=1."""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers.browser import Browser
from containers.checkout import SECRETS, copied_to, secret
from containers.docker_cli import called
from containers.load import Load
from containers.messages import Gateway
from containers.project import COMPOSE_FILE, GRACE_SECONDS, Project
from servers.processes import free_port

PORTS = ("GATEWAY_PORT", "DISCOVERY_PORT", "RABBITMQ_PORT", "RABBITMQ_MANAGEMENT_PORT")
#: Replaced by the tests' own, which is waited for.
SHIPPED_GRACE = 'GRACE_SECONDS: "25"'
BUILD_SECONDS = 1500.0
#: Whichever test comes first waits for the builds, too.
TIMEOUT_SECONDS = 2400


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All the same, so that they keep the order of their files; each wait in them has a limit of its own."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(scope="session", autouse=True)
def wanted() -> None:
    if os.environ.get("CONTAINER_TESTS") != "1":
        pytest.skip("needs Docker and builds images for minutes; CONTAINER_TESTS=1 runs it")


@pytest.fixture(scope="session")
def checkout(wanted: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, with images built from it and secrets of its own; its services stop sooner."""
    folder = copied_to(tmp_path_factory.mktemp("clone") / "plugplay")
    file = folder / COMPOSE_FILE
    shipped = file.read_text()
    assert shipped.count(SHIPPED_GRACE) == 1
    file.write_text(shipped.replace(SHIPPED_GRACE, f'GRACE_SECONDS: "{GRACE_SECONDS}"'))
    return folder


@pytest.fixture(scope="session")
def project(checkout: Path, pytestconfig: pytest.Config) -> Iterator[Project]:
    """Built and up; nothing of it is left at the end."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    # Ports below those that the system hands out, so that a restarted container finds its own free.
    settings = {name: str(free_port()) for name in PORTS}
    made = Project(f"plugplay-test-{secrets.token_hex(3)}", checkout, settings)
    try:
        start = time.monotonic()
        told = called(["./build.sh"], folder=checkout, settings=made.variables, within_seconds=BUILD_SECONDS)
        built = time.monotonic()
        made.up()
        with capture.global_and_fixture_disabled():
            took = f"built in {built - start:.0f} s, all healthy {time.monotonic() - built:.0f} s later"
            print(f"\n{told}\n{took}", file=sys.stderr)
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.down("--rmi", "local")


@pytest.fixture
def up(project: Project, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The environment, all of it running; logs are shown when the test fails."""
    failures = request.session.testsfailed
    if not project.is_up():
        project.up()
    yield project
    if request.session.testsfailed > failures:
        print(project.logs())


@pytest.fixture(scope="session")
def secret_values(project: Project) -> dict[str, str]:
    """What `build.sh` wrote for nobody else to know, by the names of the files; URLs are there with their passwords."""
    names = [path.name for path in (project.folder / SECRETS).iterdir() if not path.name.endswith((".json", "-url"))]
    found = {name: secret(project.folder, name) for name in names}
    assert len(found) == 12
    assert all(len(value) >= 40 for value in found.values())
    return found


@pytest.fixture
def gateway(up: Project) -> Gateway:
    return Gateway(up.url("gateway", 8000), secret(up.folder, "admin-token"))


def url_of_broker(project: Project, user: str) -> str:
    """From here."""
    password = secret(project.folder, f"rabbitmq-{user}-password")
    return f"amqp://{user}:{password}@127.0.0.1:{project.settings['RABBITMQ_PORT']}/"


@pytest.fixture
def queue_url(up: Project) -> str:
    """Of the broker, for who may make queues of their own."""
    return url_of_broker(up, "plugplay")


@pytest.fixture
def sender_url(up: Project) -> str:
    """Of the broker, for who may only send."""
    return url_of_broker(up, "sender")


@pytest.fixture
def load(queue_url: str, gateway: Gateway) -> Callable[[str], Load]:
    """Tasks that are sent all the time."""
    return lambda name: Load(f"{name}-{secrets.token_hex(3)}", queue_url, gateway)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(Path(os.environ.get("SCREENSHOTS_FOLDER") or tmp_path_factory.mktemp("browser")))


@pytest.fixture(scope="session")
def worker_command() -> list[str]:
    return [sys.executable, "-P", "-m", "worker"]
