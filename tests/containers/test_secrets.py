"""What `build.sh` makes of the secrets of an older checkout, and of changed ones; in a checkout that is not started."""

import os
from pathlib import Path

import pytest
from containers.checkout import SECRETS, copied_to, secret
from containers.docker_cli import CommandFailed, called
from containers.project import Project

from runnerlib.contract.identity import RunnerIdentity, RunnerKeys

OLD_BROKER, OLD_DATABASE = "0123456789abcdef", "12345678901234567890"
#: As Compose reads it, and as somebody's editor has left it.
OLD_ENV = f'# ports\nGATEWAY_PORT=18000\nexport RABBITMQ_PASSWORD="{OLD_BROKER}"\nPOSTGRES_PASSWORD= {OLD_DATABASE}'


@pytest.fixture
def older(project: Project, tmp_path: Path) -> Path:
    """A checkout with what older versions wrote into `.env`; the images are those of the environment."""
    folder = copied_to(tmp_path / "older")
    (folder / ".env").write_text(OLD_ENV)
    return folder


def built(project: Project, folder: Path, *words: str) -> str:
    names = words or ("runner-discovery",)
    return called(["./build.sh", *names], folder=folder, settings=project.variables, within_seconds=300)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / SECRETS).iterdir()}


def test_passwords_of_an_older_checkout_go_on_working(project: Project, older: Path) -> None:
    told = built(project, older)
    assert secret(older, "rabbitmq-plugplay-password") == OLD_BROKER
    assert secret(older, "postgres-password") == OLD_DATABASE
    assert secret(older, "database-url") == f"postgresql://plugplay:{OLD_DATABASE}@postgres:5432/plugplay"
    assert "took the password RABBITMQ_PASSWORD over into ./secrets/rabbitmq-plugplay-password" in told
    assert OLD_BROKER not in told
    assert OLD_DATABASE not in told
    assert (older / ".env").read_text().startswith(f"{OLD_ENV}\n"), "nothing of .env is lost"


def test_nothing_that_is_there_is_made_anew(project: Project, older: Path) -> None:
    assert "wrote into ./secrets: admin-token" in built(project, older)
    before = contents(older)
    (older / ".env").write_text("SECRETS_FOLDER=./secrets\nPOSTGRES_PASSWORD=another\n")
    told = built(project, older)
    assert contents(older) == before
    assert "wrote into" not in told
    assert "took the password" not in told


def test_token_that_its_administrator_wrote_is_kept_and_can_be_read_by_the_containers(
    project: Project, older: Path
) -> None:
    (older / SECRETS).mkdir()
    token = older / SECRETS / "admin-token"
    token.write_text("a" * 43)
    token.chmod(0o600)
    built(project, older)
    assert token.read_text() == "a" * 43
    assert token.stat().st_mode & 0o777 == 0o644
    assert token.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_made_from_a_secret_follows_it(project: Project, older: Path) -> None:
    built(project, older)
    before = contents(older)
    keys, password = older / SECRETS / "runner-keys", older / SECRETS / "rabbitmq-gateway-password"
    former = keys.read_text().strip()
    keys.write_text(f"{'n' * 40}, {former}\n")
    password.write_text("changed\n")
    for path in (keys, password):
        # Later than what is made from it, also where times are whole seconds.
        later = path.stat().st_mtime + 2
        os.utime(path, (later, later))
    built(project, older)
    after = contents(older)
    tokens = {name for name in after if name.endswith("-runner-token")}
    assert tokens > {"text-runner-token", "word-count-node-runner-token"}
    changed = {name for name, content in after.items() if content != before[name]}
    assert changed == {*tokens, keys.name, password.name, "gateway-queue-url", "rabbitmq-definitions.json"}
    of_text = RunnerKeys(["n" * 40, former]).runner_of(secret(older, "text-runner-token"))
    assert isinstance(of_text, RunnerIdentity)
    assert of_text.name == "text"
    assert secret(older, "gateway-queue-url") == "amqp://gateway:changed@rabbitmq:5672/"


def test_password_that_an_address_cannot_have_is_refused(project: Project, older: Path) -> None:
    (older / ".env").write_text("POSTGRES_PASSWORD='a@b'\n")
    with pytest.raises(CommandFailed, match="POSTGRES_PASSWORD has characters that cannot be used here"):
        built(project, older)
    assert not (older / SECRETS / "postgres-password").exists()
