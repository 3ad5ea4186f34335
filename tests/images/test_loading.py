"""A runner whose models take seconds to load: alive meanwhile, ready once they are proved to work."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from environments import Environment, Service, until
from runner_environments import MEMES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MakeRunner = Callable[..., Service]
DAMAGE = """
import sys, numpy as np
with np.load(sys.argv[1]) as stored:
    arrays = dict(stored)
arrays["directions"] = arrays["directions"][::-1]
np.savez_compressed(sys.argv[1], **arrays)
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Environment]:
    """Only runners are started, and they register nowhere."""
    made = Environment(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def damaged(tmp_path: Path, runner_pythons: dict[str, Path]) -> Path:
    """The runner's folder, with the labels' directions in another order."""
    folder = tmp_path / "meme-classifier"
    shutil.copytree(MEMES, folder, ignore=shutil.ignore_patterns(".cache", "__pycache__"))
    command = [str(runner_pythons["meme-classifier"]), "-c", DAMAGE, str(folder / "weights" / "head.npz")]
    subprocess.run(command, check=True)
    return folder


def test_runner_is_alive_while_it_loads_and_its_first_answer_is_as_fast_as_the_hundredth(
    alone: Environment, meme_runner: MakeRunner, demo: bytes, data_url: Callable[[bytes], str]
) -> None:
    runner = meme_runner(alone, DISCOVERY_URL="").start(ready=False)
    seen: list[tuple[int, int]] = []

    def ready() -> bool:
        codes = [requests.get(f"{runner.url}/healthz/{kind}", timeout=5).status_code for kind in ("live", "ready")]
        seen.append((codes[0], codes[1]))
        return codes[1] == 200

    until(ready, f"ready; see {runner.log}", 240)
    assert {live for live, _ in seen} == {200}
    assert seen.count((200, 503)) >= 3, seen
    payload = {"image_url": data_url(demo)}
    seconds = []
    for _ in range(100):
        started = time.perf_counter()
        answer = requests.post(f"{runner.url}/run/meme_classifier", json=payload, timeout=60)
        seconds.append(time.perf_counter() - started)
        assert answer.json()["result"]["label"] == "unknown", answer.text
    first, later = statistics.mean(seconds[:3]), statistics.quantiles(seconds[50:], n=10)[-1]
    print(f"not ready {seen.count((200, 503))} times; first three {first * 1000:.0f} ms, later {later * 1000:.0f} ms")
    assert first <= 5 * later, seconds


def test_damaged_weights_are_found_before_anybody_gets_an_answer_from_them(
    alone: Environment,
    meme_runner: MakeRunner,
    damaged: Path,
    not_ready: Callable[[Service, str], str],
    demo: bytes,
    data_url: Callable[[bytes], str],
) -> None:
    runner = meme_runner(alone, damaged, DISCOVERY_URL="").start(ready=False)
    not_ready(runner, "weights/head.npz does not give the stored labels; check it out again, or train again")
    assert requests.get(f"{runner.url}/healthz/live", timeout=5).status_code == 200

    def status(algorithm: str) -> int:
        payload = {"image_url": data_url(demo)}
        return requests.post(f"{runner.url}/run/{algorithm}", json=payload, timeout=60).status_code

    until(lambda: status("ocr") == 200, "the algorithm that needs no weights works")
    assert (status("meme_classifier"), status("meme_describe")) == (503, 503)
