"""Who gets an algorithm's tasks, and what an author is told who does not get them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

pytestmark = pytest.mark.timeout(240)

CASES = Path(__file__).parent / "cases" / "registration_refused"
PREDICT = """
def run_predict(text: str) -> str:
    return "{answer}"


def run_only_{name}(text: str) -> str:
    return "{name}"
"""


def reasons(runner: Any) -> dict[str, str]:
    answer = requests.get(f"{runner.url}/healthz/ready", timeout=5)
    found: dict[str, str] = answer.json()["reasons"]
    assert answer.status_code == (503 if found else 200)
    return found


def catalogue(environment: Any) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{environment.discovery.url}/catalogue", timeout=5).json()
    return found


def result(environment: Any, algorithm: str) -> Any:
    return environment.finished(environment.submit(algorithm, {"text": "a"}))["result"]


def write(folder: Path, name: str, answer: str) -> str:
    made = folder / "runners" / name
    made.mkdir(parents=True)
    (made / "runner_adapter.py").write_text(PREDICT.format(name=name, answer=answer), encoding="utf-8")
    return str(made)


@pytest.mark.parametrize(
    ("case", "takes", "refused", "says"),
    [
        ("literal_of_60000", "small", "biglit", "the schema of its parameters has"),
        ("mixed_default_over_64_bits", "fine", "seeded", "integer of 20 digits does not fit in 64 bits"),
    ],
)
def test_what_cannot_be_registered_is_said_and_the_rest_of_the_runner_works(
    environment: Any, until: Callable[..., Any], case: str, takes: str, refused: str, says: str
) -> None:
    command = [sys.executable, "-P", "-m", "runnerlib", "check", str(CASES / case)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 4
    assert f"run_{refused}(): it cannot be registered" in checked.stderr and says in checked.stderr
    environment.start()
    runner = environment.runner(str(CASES / case), "refused").start(ready=False)
    environment.wait_offered(runner)
    assert result(environment, takes) == "a"
    until(lambda: list(reasons(runner)) == [f"registration of {refused}"], "readiness names what is refused alone")
    assert says in reasons(runner)[f"registration of {refused}"]
    assert refused not in catalogue(environment)["algorithms"]


def test_two_runners_of_different_names_that_offer_an_algorithm_are_a_clash(
    environment: Any, until: Callable[..., Any], tmp_path: Path
) -> None:
    environment.start()
    iris = environment.runner(write(tmp_path, "iris", "setosa"), "iris").start()
    environment.wait_offered(iris)
    weather = environment.runner(write(tmp_path, "weather", "rain"), "weather").start(ready=False)
    until(lambda: "registration of predict" in reasons(weather), "its author is told")
    sentence = reasons(weather)["registration of predict"]
    assert "'predict' belongs to runner 'iris'" in sentence and "worker take-over predict weather" in sentence
    assert "belongs to another runner" in weather.log.read_text()
    view = catalogue(environment)["algorithms"]["predict"]
    assert (view["owner"], len(view["runners"]), len(view["clashing"])) == ("iris", 1, 1)
    assert {result(environment, "predict") for _ in range(10)} == {"setosa"}
    assert result(environment, "only_weather") == "weather"
    shown = requests.get(f"{environment.core.url}/status", timeout=5).json()["runners"]
    assert {one["name"]: one["clashes"] for one in shown} == {"iris": {}, "weather": {"predict": "iris"}}

    iris.stop()
    waiting = environment.submit("predict", {"text": "a"})
    until(lambda: "belongs to runner 'iris', which is away" in environment.task(waiting)["waiting_for"], "it waits")
    answer = requests.put(f"{environment.discovery.url}/owners/predict", json={"runner": "weather"}, timeout=5)
    assert answer.status_code == 204, answer.text
    assert environment.finished(waiting)["result"] == "rain"
    until(lambda: reasons(weather) == {}, "its author is told", 10)
    iris.start(ready=False)
    until(lambda: "belongs to runner 'weather'" in str(reasons(iris)), "now the other one clashes")


def test_a_process_that_leaves_takes_no_successor_off_the_list(environment: Any) -> None:
    environment.start("steady")
    (runner,) = catalogue(environment)["runners"]
    answer = requests.delete(f"{environment.discovery.url}/runners/{runner}", timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (400, "boot_missing")
    assert runner in catalogue(environment)["runners"]
