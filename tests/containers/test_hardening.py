"""What somebody who has broken into a container, or reads an image, would find."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from typing import IO, Any

import pytest
from containers.checkout import SECRETS
from containers.docker_cli import CommandFailed, docker, inspected_image
from containers.project import Container, Project
from environments import until

OURS = ("runner-discovery", "controller", "gateway", "text-runner", "nlp-runner", "meme-classifier-runner")
SERVERS = ("rabbitmq", "postgres")
RUNNERS = tuple(name for name in OURS if name.endswith("-runner"))
#: What each service gets; a runner gets its own token.
SECRETS_OF = {
    "runner-discovery": ["runner-keys", "metrics-token"],
    "controller": ["runner-keys", "metrics-token", "postgres-password", "rabbitmq-controller-password"],
    "gateway": ["runner-keys", "metrics-token", "postgres-password", "rabbitmq-gateway-password", "admin-token"],
}
LIGHT = tuple(name for name in OURS if name != "meme-classifier-runner")
#: What a light image may have on top of the one it is made from.
LIGHT_BYTES = 120_000_000
PORT_OF = {"gateway": 8000, "runner-discovery": 8010, "controller": 8020}
#: Prints the status and the body of a GET.
ASK = """
import sys, urllib.error, urllib.request
url, token = sys.argv[1:]
try:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    answer = urllib.request.urlopen(request, timeout=20)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""
LIVE = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/healthz/live", timeout=5).status)
"""
READ_ONLY = (
    "import errno, sys\n"
    "for folder in ('/', '/app', '/opt/venv', '/usr/local/bin', '/etc', '/var/tmp', '/home', '/root'):\n"
    "    try:\n"
    "        open(folder + '/written', 'w').close()\n"
    "    except OSError as error:\n"
    "        assert error.errno in (errno.EROFS, errno.EACCES, errno.ENOENT), (folder, error)\n"
    "    else:\n"
    "        sys.exit(folder + ' can be written')\n"
    "try:\n"
    "    open('/dev/shm/../../written', 'w')\n"
    "except OSError as error:\n"
    "    print(errno.errorcode[error.errno])\n"
    "open('/tmp/written', 'w').close()\n"
)


def image_of(container: Container) -> dict[str, Any]:
    return inspected_image(container.details["Image"])


def base_of(image: dict[str, Any]) -> dict[str, Any]:
    """The public image of Python or Debian that it is made from: its layers are the first ones."""
    layers = image["RootFS"]["Layers"]
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    names = [name for name in listed if name.startswith(("python:", "debian:")) and name.endswith("-slim")]
    bases = [base for base in map(inspected_image, names) if layers[: len(_layers(base))] == _layers(base)]
    return max(bases, key=lambda base: len(_layers(base)))


def _layers(image: dict[str, Any]) -> list[str]:
    return list(image["RootFS"]["Layers"])


def test_all_are_healthy_and_light_images_are_light(up: Project, capsys: pytest.CaptureFixture[str]) -> None:
    running = {each.service: each for each in up.containers()}
    assert running.keys() == {*OURS, *SERVERS}
    assert [name for name, each in running.items() if not each.is_healthy] == []
    lines, too_large = [], []
    for name in OURS:
        image = image_of(running[name])
        base = base_of(image)
        more = image["Size"] - base["Size"]
        lines.append(f"{name:24} {image['Size'] / 1e6:6.0f} MB = {base['RepoTags'][0]} + {more / 1e6:.0f} MB")
        if name in LIGHT and more > LIGHT_BYTES:
            too_large.append(lines[-1])
    with capsys.disabled():
        print("", *lines, sep="\n", file=sys.stderr)
    assert too_large == []


@pytest.mark.parametrize("service", OURS)
def test_container_runs_without_rights(up: Project, service: str) -> None:
    container = up.container(service)
    host = container.details["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"] or "no-new-privileges" in host["SecurityOpt"]
    assert container.details["Config"]["User"] == "10001:10001"
    assert container.details["Path"] == "tini"
    status = status_of_first(container)
    assert status["Uid"] == status["Gid"] == ["10001"] * 4
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == ["0000000000000000"]
    assert status["NoNewPrivs"] == ["1"]
    assert users_in(container) == {"10001"}
    assert docker("exec", container.id, "python", "-c", READ_ONLY).split() == ["EROFS"]


@pytest.mark.parametrize("service", SERVERS)
def test_server_runs_as_a_user_of_its_own(up: Project, service: str) -> None:
    container = up.container(service)
    assert "0" not in users_in(container)
    status = status_of_first(container)
    assert status["CapEff"] == ["0000000000000000"]
    assert status["NoNewPrivs"] == ["1"]


@pytest.mark.parametrize("service", [*OURS, *SERVERS])
def test_container_has_limits_and_comes_back_by_itself(up: Project, service: str) -> None:
    container = up.container(service)
    host = container.details["HostConfig"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"]["max-size"]
    assert container.details["Name"].startswith(f"/{up.name}-{service}-")


def test_everything_is_published_on_this_machine_only_and_nothing_is_named_by_hand(up: Project) -> None:
    services = up.configuration()["services"]
    published = [(name, port) for name, service in services.items() for port in service.get("ports", ())]
    assert {name for name, _ in published} >= {*OURS, "rabbitmq"} - {"controller"}
    assert [(name, port) for name, port in published if port.get("host_ip") != "127.0.0.1"] == []
    assert [name for name, service in services.items() if "container_name" in service] == []
    assert "docker.sock" not in json.dumps(services)
    assert "postgres" not in {name for name, _ in published}


def test_profile_for_gpus_asks_for_one(up: Project) -> None:
    words = ("--profile", "gpu", "config", "--format", "json")
    service = json.loads(up.compose(*words))["services"]["meme-classifier-gpu-runner"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["build"]["args"]["TORCH_BACKEND"].startswith("cu")


@pytest.mark.parametrize("service", OURS)
def test_no_secret_is_in_an_image(up: Project, secret_values: dict[str, str], service: str) -> None:
    image = up.container(service).details["Image"]
    told = docker("image", "history", "--no-trunc", "--format", "json", image) + json.dumps(inspected_image(image))
    assert shown_in(told, secret_values) == []
    # From a file that is made while the image is built; its description does not hold it.
    must_be_there = b"app:x:10001:"
    needles = [value.encode() for value in secret_values.values()] + [must_be_there]
    assert found_in_layers(image, needles) == {must_be_there}


@pytest.mark.parametrize("service", [*OURS, *SERVERS])
def test_container_shows_no_secret_to_those_who_look_at_it(
    up: Project, secret_values: dict[str, str], service: str
) -> None:
    container = up.container(service)
    told = json.dumps(container.details) + docker("top", container.id, "-eo", "pid,args")
    assert f'"com.docker.compose.service": "{service}"' in told
    assert shown_in(told, secret_values) == []
    logs = up.compose("logs", "--no-color", service)
    assert len(logs) > 100
    assert shown_in(logs, secret_values) == []


@pytest.mark.parametrize("service", OURS)
def test_each_container_has_the_secrets_that_it_needs_as_files_and_no_other(
    up: Project, secret_values: dict[str, str], service: str
) -> None:
    container = up.container(service)
    environ = docker("exec", container.id, "cat", "/proc/1/environ")
    assert "_FILE=/run/secrets/" in environ
    assert shown_in(environ, secret_values) == []
    listed = docker("exec", container.id, "ls", "/run/secrets").split()
    content = docker("exec", container.id, "cat", *(f"/run/secrets/{name}" for name in listed))
    of_runner = [f"{service}-token"] if service in RUNNERS else []
    assert sorted(shown_in(content, secret_values)) == sorted(of_runner or SECRETS_OF[service])
    assert {f"{name}_FILE" for name in map(variable_of, listed)} <= {
        word.partition("=")[0] for word in environ.split("\0")
    }


@pytest.mark.parametrize("service", ["gateway", "runner-discovery", "controller"])
def test_metrics_need_a_token_and_show_none(up: Project, secret_values: dict[str, str], service: str) -> None:
    url = f"http://127.0.0.1:{PORT_OF[service]}/metrics"
    assert "401" in up.run_in(service, "python", "-c", ASK, url, "").split()
    told = up.run_in(service, "python", "-c", ASK, url, secret_values["metrics-token"])
    assert told.startswith("200")
    assert "process_cpu_seconds_total" in told
    assert shown_in(told, secret_values) == []


def test_secrets_are_read_by_their_owner_and_containers_alone(up: Project) -> None:
    assert os.stat(up.folder / ".env").st_mode & 0o777 == 0o600
    folder = up.folder / SECRETS
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert {f"{SECRETS}/", ".env"} <= set((up.folder / ".gitignore").read_text().split())
    assert (up.folder / ".dockerignore").read_text().splitlines()[1] == "*"


def test_without_secrets_compose_says_what_to_do(up: Project) -> None:
    with pytest.raises(CommandFailed, match=r"run \./build\.sh first"):
        up.compose("--env-file", os.devnull, "config", "--quiet")


def shown_in(text: str, secret_values: dict[str, str]) -> list[str]:
    """The names of the secrets that a text has."""
    return [name for name, value in secret_values.items() if value in text]


def variable_of(secret: str) -> str:
    return secret.upper().replace("-", "_")


@pytest.mark.parametrize("service", [name for name in OURS if name != "meme-classifier-runner"])
def test_image_by_itself_listens_without_tokens_only_if_that_is_said(up: Project, service: str) -> None:
    image = up.container(service).details["Image"]
    servers = ("--env", "QUEUE_URL=amqp://none.invalid/", "--env", "DATABASE_URL=postgresql://none.invalid/none")
    with pytest.raises(CommandFailed, match=r"must not listen on 0\.0\.0\.0, where others reach it: set .*AUTH=none"):
        docker("run", "--rm", "--network", "none", *servers, image)
    started = docker("run", "--detach", "--network", "none", "--env", "AUTH=none", *servers, image).strip()
    try:
        look = ("exec", started, "python", "-c", LIVE, str(PORT_OF.get(service, 8000)))
        until(lambda: answers(look), "it listens", 60)
    finally:
        docker("rm", "--force", started)


def answers(look: tuple[str, ...]) -> bool:
    try:
        return docker(*look).strip() == "200"
    except CommandFailed:
        return False


def status_of_first(container: Container) -> dict[str, list[str]]:
    """Of its process 1, as the kernel tells it."""
    lines = docker("exec", container.id, "cat", "/proc/1/status").splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


def users_in(container: Container) -> set[str]:
    """The numbers of those whom its processes belong to."""
    _, *lines = docker("top", container.id, "-eo", "uid,pid").splitlines()
    return {line.split()[0] for line in lines}


def found_in_layers(image: str, needles: list[bytes]) -> set[bytes]:
    """Which of these are in the files of any of its layers, also in those that a later one removes."""
    found: set[bytes] = set()
    with (
        subprocess.Popen(["docker", "image", "save", image], stdout=subprocess.PIPE) as saving,
        tarfile.open(fileobj=saving.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if (content := archive.extractfile(member)) is not None:
                # Some engines keep layers packed.
                is_packed = content.peek(2)[:2] == b"\x1f\x8b"
                found |= found_in(gzip.GzipFile(fileobj=content) if is_packed else content, needles)
    assert saving.returncode == 0
    return found


def found_in(content: IO[bytes], needles: list[bytes]) -> set[bytes]:
    keep = max(map(len, needles))
    found: set[bytes] = set()
    window = b""
    while piece := content.read(8 * 1024 * 1024):
        window = window[-keep:] + piece
        found |= {needle for needle in needles if needle in window}
    return found
