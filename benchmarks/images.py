"""What the environment costs around a real model: pictures through the queue, beside a bare batched loop.

    .venv/bin/python benchmarks/images.py [--pictures 400] [--rounds 3]

Both sides take the same pictures from the same local server, in batches of the same size, with one thread of torch
each, turn by turn on the same cores. CPU time of the environment is that of all its processes: discovery, controller
with gateway, the runner's serving process and its worker processes. Compare the ratios: at most 1.1 of the CPU time,
at least 0.9 of the rate. Makes the runner's virtual environment when it is not there (1 GB of torch).
"""

import argparse
import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

HERE = Path(__file__).resolve().parent
LIB = HERE.parent / "tests" / "lib"
sys.path.insert(0, str(LIB))

from environments import Environment, Service, until  # noqa: E402
from picture_server import PictureServer  # noqa: E402
from runner_environments import MEMES, pythons, training_sources, with_python  # noqa: E402
from servers.processes import family  # noqa: E402

#: As the runner's OPTIONS say.
BATCH = 64
PATIENCE_SECONDS = 600.0


@dataclass
class Cost:
    """Seconds for all pictures, and the best guess for each."""

    cpu: float
    clock: float
    labels: list[str]


class BareLoop:
    """The model in a process of its own, for as many turns as wanted."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), "-P", str(HERE / "bare_images.py"), str(BATCH)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(MEMES)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "BareLoop":
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def turn(self, urls: list[str]) -> Cost:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(urls) + "\n")
        self._process.stdin.flush()
        return Cost(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Queue:
    """The whole environment on SQLite."""

    def __init__(self, environment: Environment, runner: Service) -> None:
        self._environment = environment
        self._runner = runner

    def turn(self, urls: list[str]) -> Cost:
        before, started = self.cpu(), time.perf_counter()
        ids = self._environment.submit_many("meme_classifier", [{"image_url": url} for url in urls])
        database = self._environment.folder / "tasks.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as rows:
            query = "SELECT count(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed')"
            until(lambda: rows.execute(query).fetchone() == (0,), "all have ended", PATIENCE_SECONDS)
            clock, after = time.perf_counter() - started, self.cpu()
            results = dict(rows.execute("SELECT id, result FROM tasks"))
        self.parts = {name: after[name] - before[name] for name in after}
        labels = [json.loads(results[task_id])["top"][0]["label"] for task_id in ids]
        return Cost(sum(self.parts.values()), clock, labels)

    def cpu(self) -> dict[str, float]:
        """Seconds so far, of each service; of the runner's worker processes by themselves."""
        used = {}
        for service in self._environment.services:
            assert service.process is not None
            *workers, parent = (sum(one.cpu_times()[:2]) for one in family(service.process.pid))
            used[service.name] = parent
            if service is self._runner:
                used["its processes"] = sum(workers)
        return used

    def mean_batch(self) -> float:
        """Tasks in one call of the worker process, so far."""
        lines = requests.get(f"{self._runner.url}/metrics", timeout=10).text.splitlines()
        found = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if not line.startswith("#")}
        name = 'runner_call_tasks_{}{{algorithm="meme_classifier"}}'
        return found[name.format("sum")] / found[name.format("count")]


@contextlib.contextmanager
def environment(python: Path, folder: Path) -> Iterator[Queue]:
    made = Environment(folder)
    runner = with_python(made.runner(str(MEMES), "meme-classifier", FETCH_ALLOW_PRIVATE="127.0.0.1/32"), python)
    try:
        for service in made.services:
            service.start(ready=False)
        for service in made.services:
            service.wait_ready(PATIENCE_SECONDS)
        made.wait_offered(runner)
        yield Queue(made, runner)
    finally:
        made.stop()


def drawn(python: Path, folder: Path, count: int) -> list[Path]:
    """Captioned memes; as many JPEGs as PNGs as WebPs."""
    found = os.pathsep.join((str(MEMES), str(training_sources(python))))
    command = [str(python), "-P", str(LIB / "picture_drawing.py"), str(folder), "benchmark", "--memes", str(count)]
    subprocess.run(command, env={"PATH": os.environ["PATH"], "PYTHONPATH": found}, check=True)
    return [folder / picture["file"] for picture in json.loads((folder / "pictures.json").read_text())]


def show(name: str, cost: Cost, note: str = "") -> None:
    count = len(cost.labels)
    print(
        f"{name:12} {1000 * cost.cpu / count:6.1f} ms CPU, {1000 * cost.clock / count:6.1f} ms on the clock a picture, "
        f"{count / cost.clock:5.1f} pictures/s{note}",
        flush=True,
    )


def compare(queue: Queue, bare: BareLoop, urls: list[str], rounds: int) -> None:
    sides: dict[str, Any] = {"environment": queue, "bare loop": bare}
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for number in range(rounds):
        # The second one finds the files in the system's memory, and the cores in another mood: they change places.
        for name in list(sides) if number % 2 else reversed(list(sides)):
            cost = sides[name].turn(urls)
            costs[name].append(cost)
            parts = (
                "; ".join(f"{part} {used:.2f} s" for part, used in queue.parts.items()) if name != "bare loop" else ""
            )
            show(name, cost, f" ({parts})" if parts else "")
    same = sum(one == other for one, other in zip(*(costs[name][-1].labels for name in sides), strict=True))
    print(f"the same label for {same} of {len(urls)}; {queue.mean_batch():.1f} tasks in a call of the runner's process")
    for what in ("cpu", "clock"):
        ratios = [getattr(a, what) / getattr(b, what) for a, b in zip(*costs.values(), strict=True)]
        shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"environment / bare loop, {what}: median {statistics.median(ratios):.3f} of {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    python = pythons("meme-classifier")["meme-classifier"]
    with tempfile.TemporaryDirectory() as folder, PictureServer() as server:
        pictures, data = Path(folder, "pictures"), Path(folder, "data")
        pictures.mkdir()
        data.mkdir()
        urls = [server.add(path.name, path.read_bytes()) for path in drawn(python, pictures, options.pictures)]
        with environment(python, data) as queue, BareLoop(python) as bare:
            for side in (queue, bare):
                side.turn(urls[: 2 * BATCH])
            print(f"{options.rounds} rounds of {len(urls)} pictures; load of the machine {os.getloadavg()[0]:.1f}")
            compare(queue, bare, urls, options.rounds)


if __name__ == "__main__":
    main()
