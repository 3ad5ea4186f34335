"""A system package that is missing costs the algorithms that need it, and no other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from environments import Environment, Service, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def environment_without(tmp_path: Path, meme_runner: Callable[..., Service]) -> Iterator[Environment]:
    """The image runner finds no program on its PATH."""
    nothing = tmp_path / "no-programs"
    nothing.mkdir()
    made = Environment(tmp_path)
    meme_runner(made, PATH=str(nothing))
    try:
        for service in made.services:
            service.start(ready=False)
        yield made
    finally:
        made.stop()


def test_memes_are_classified_where_tesseract_is_missing(
    environment_without: Environment,
    not_ready: Callable[[Service, str], str],
    demo: bytes,
    data_url: Callable[[bytes], str],
) -> None:
    runner = environment_without.services[-1]
    said = not_ready(runner, "apt-get install tesseract-ocr")
    assert "ocr" in said
    environment_without.core.wait_ready()

    def offered() -> set[str]:
        catalogue = requests.get(f"{environment_without.discovery.url}/catalogue", timeout=5).json()
        return {name for view in catalogue["runners"].values() for name in view["algorithms"]}

    until(lambda: "meme_classifier" in offered(), "the classifier is offered", 240)
    task_id = environment_without.submit("meme_classifier", {"image_url": data_url(demo)})
    view = environment_without.finished(task_id)
    assert (view["state"], view["result"]["label"]) == ("succeeded", "unknown")
    assert offered() == {"meme_classifier"}
    answer = requests.get(f"{runner.url}/healthz/ready", timeout=5)
    assert answer.status_code == 503
    assert "tesseract-ocr" in answer.text
    assert requests.get(f"{runner.url}/healthz/live", timeout=5).status_code == 200
