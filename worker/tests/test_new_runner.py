"""A new runner: whole at once, well named, and right as it is."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from worker.errors import BadName
from worker.new_runner import algorithm_of, next_steps
from worker.new_runner import make_runner as new_folder
from worker.runner_commands import PYTEST
from worker.runners import RunnerFolder, list_runners

WORKER = Path(__file__).parent.parent


@pytest.mark.parametrize(("name", "algorithm"), [("shout", "shout"), ("to-upper2", "to_upper2"), ("class", "class")])
def test_new_runner_passes_its_own_tests_and_the_check(tmp_path: Path, name: str, algorithm: str) -> None:
    folder = new_folder(tmp_path / "runners", name)
    checked = subprocess.run([sys.executable, "-m", "runnerlib", "check", folder], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert f"{algorithm}(text: str) -> str" in checked.stdout
    command = [sys.executable, *PYTEST, "-k", "not http" if name != "shout" else ""]
    tested = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert [runner.name for runner in list_runners(tmp_path / "runners")] == [name]
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("name", "better"), [("Shout", "shout"), ("to upper!", "to-upper"), ("2nd", "nd"), ("", ""), ("../x", "x")]
)
def test_name_that_no_runner_can_have_is_refused_with_a_better_one(tmp_path: Path, name: str, better: str) -> None:
    with pytest.raises(BadName, match=f"cannot be a runner's name.*{better}"):
        new_folder(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_name_of_64_characters_is_refused() -> None:
    assert algorithm_of("a" * 63) == "a" * 63
    with pytest.raises(BadName, match="63 characters at most"):
        algorithm_of("a" * 64)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    adapter = new_folder(tmp_path, "shout") / "runner_adapter.py"
    adapter.write_text("mine")
    with pytest.raises(BadName, match="is there already"):
        new_folder(tmp_path, "shout")
    assert adapter.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["shout"]


def test_algorithm_of_another_runner_is_not_taken_over_by_accident(
    tmp_path: Path, make_runner: Callable[..., RunnerFolder]
) -> None:
    make_runner("text", "def run_upper(text: str) -> str:\n    return text.upper()\n")
    make_runner("broken", "def run_lower(:")
    runners = tmp_path / "runners"
    with pytest.raises(BadName, match="the runner text offers the algorithm 'upper' already"):
        new_folder(runners, "upper")
    new_folder(runners, "lower")


def test_next_steps_name_the_two_lines_and_the_command(tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "to-upper")
    told = next_steps(folder, "to-upper", is_followed=True)
    adapter = (folder / "runner_adapter.py").read_text()
    for line in ("return text", "'hi'"):
        assert line in told
        assert f"    {line}\n" in adapter
    assert 'producer send to_upper \'{"text": "hi"}\' --wait' in told
    assert "worker up" not in told
    assert "worker up" in next_steps(folder, "to-upper", is_followed=False)


def test_new_runner_is_built_as_the_shipped_ones_are(tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "to-upper2")
    shipped = (WORKER.parent / "runners" / "text" / "Dockerfile").read_text()
    for_text = (folder / "Dockerfile").read_text().replace("to-upper2", "text")
    assert for_text == shipped
    assert "FROM ${PYTHON_IMAGE}" in for_text


def test_new_runner_joins_the_containers_as_a_service_of_its_own(tmp_path: Path) -> None:
    fragment = yaml.safe_load((new_folder(tmp_path, "to-upper2") / "compose.yml").read_text())
    shipped = yaml.safe_load((WORKER.parent / "docker-compose.yml").read_text())
    assert list(fragment["services"]) == ["to-upper2-runner"]
    service = fragment["services"]["to-upper2-runner"]
    like = shipped["services"]["text-runner"]
    assert service["build"] == like["build"] | {"dockerfile": "runners/to-upper2/Dockerfile"}
    # What others have to do for it would start them anew; what they share would be taken from them.
    for key in ("depends_on", "container_name"):
        assert key not in service
    assert service["env_file"] == [{"path": "runners/to-upper2/.env", "required": False}]
    for key in like.keys() - {"build", "depends_on", "environment", "env_file", "secrets"}:
        assert service[key] == like[key], key
    names = ("DISCOVERY_URL", "GRACE_SECONDS", "RUNNER_TOKEN_FILE")
    assert service["environment"] == {name: like["environment"][name] for name in names}


def test_new_runner_has_a_token_of_its_own(tmp_path: Path) -> None:
    fragment = yaml.safe_load((new_folder(tmp_path, "to-upper2") / "compose.yml").read_text())
    source = "to-upper2-runner-token"
    assert fragment["services"]["to-upper2-runner"]["secrets"] == [{"source": source, "target": "runner-token"}]
    assert fragment["secrets"] == {source: {"file": f"$SECRETS_FOLDER/{source}"}}


def test_next_steps_tell_how_it_gets_a_container(tmp_path: Path) -> None:
    told = next_steps(new_folder(tmp_path, "shout"), "shout", is_followed=True)
    files = "-f docker-compose.yml -f runners/shout/compose.yml"
    assert f"./build.sh shout, then\n  docker compose {files} up -d --wait shout-runner\n" in told


def test_templates_are_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=WORKER, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    for file in ("runner_adapter.py", "requirements.txt", "test_runner_adapter.py", "Dockerfile", "compose.yml"):
        assert f"worker/templates/{file}.txt" in names
