"""The image runner in the whole environment. It brings 1 GB of torch, so: only with IMAGE_TESTS=1."""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from environments import Environment, Service, until
from picture_server import PictureServer
from runner_environments import MEMES, REPOSITORY, RUNNERS, pythons, training_sources, with_python

#: Where the tests' pictures are served; nothing else that is not public may be fetched.
SERVED = "127.0.0.1/32"
#: Two of the runner's three processes import torch, on cores that other tests use too.
LOADING_SECONDS = 240.0

Send = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def wanted() -> None:
    if os.environ.get("IMAGE_TESTS") != "1":
        pytest.skip("needs 1 GB of torch; IMAGE_TESTS=1 runs it")


@pytest.fixture(scope="session")
def runner_pythons(wanted: None) -> dict[str, Path]:
    """The Python of each runner, by its name."""
    return pythons("meme-classifier", "nlp", "text")


@pytest.fixture(scope="session")
def meme_runner(runner_pythons: dict[str, Path]) -> Callable[..., Service]:
    """One more image runner of an environment; not started yet."""

    def make(environment: Environment, folder: Path = MEMES, **settings: str) -> Service:
        made = environment.runner(str(folder), "meme-classifier", FETCH_ALLOW_PRIVATE=SERVED, **settings)
        return with_python(made, runner_pythons["meme-classifier"])

    return make


@pytest.fixture(scope="session")
def images(
    runner_pythons: dict[str, Path], meme_runner: Callable[..., Service], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """Discovery, controller and gateway on SQLite, the image runner and, beside it, `nlp`; shared by these tests."""
    environment = Environment(tmp_path_factory.mktemp("images"))
    memes = meme_runner(environment)
    languages = with_python(environment.runner(str(RUNNERS / "nlp"), "nlp"), runner_pythons["nlp"])
    try:
        for service in environment.services:
            service.start(ready=False)
        for service in environment.services:
            service.wait_ready(LOADING_SECONDS if service is memes else 90)
        environment.wait_offered(memes)
        environment.wait_offered(languages)
        yield environment
    finally:
        environment.stop()


@pytest.fixture(scope="session")
def server() -> Iterator[PictureServer]:
    with PictureServer() as made:
        yield made


@pytest.fixture(scope="session")
def pictures(
    runner_pythons: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """Where 200 pictures lie, and for each whom to ask, and what the bare model says; see tests/lib/picture_drawing."""
    python = runner_pythons["meme-classifier"]
    folder = tmp_path_factory.mktemp("pictures")
    found = os.pathsep.join((str(MEMES), str(training_sources(python))))
    command = [str(python), "-P", str(REPOSITORY / "tests" / "lib" / "picture_drawing.py"), str(folder), "first"]
    subprocess.run(command, env={"PATH": os.environ["PATH"], "PYTHONPATH": found}, check=True)
    return folder, json.loads((folder / "pictures.json").read_text())


@pytest.fixture(scope="session")
def demo() -> bytes:
    """A drawn picture that shows no meme and says DELIVERS EVERY TASK, EVENTUALLY."""
    return (MEMES / "demo.png").read_bytes()


@pytest.fixture(scope="session")
def data_url() -> Callable[[bytes], str]:
    return lambda content: "data:application/octet-stream;base64," + base64.b64encode(content).decode()


@pytest.fixture(scope="session")
def not_ready() -> Callable[[Service, str], str]:
    """Waits until a runner says that it is not ready for a reason with these words; gives all that it says."""

    def wait(service: Service, words: str) -> str:
        def said() -> str:
            answer = requests.get(f"{service.url}/healthz/ready", timeout=5)
            return answer.text if answer.status_code == 503 and words in answer.text else ""

        return str(until(said, f"{service.name} says {words!r}; see {service.log}", LOADING_SECONDS))

    return wait
