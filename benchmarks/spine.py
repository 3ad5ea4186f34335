"""What the environment costs around a handler that does nothing: tasks/s, latency, memory, and who uses the CPU.

    .venv/bin/python benchmarks/spine.py [--tasks 100000]

Starts an environment of its own (`worker up` on free ports), and for comparison, in the same run on the same
cores, does what the original pattern did: one `requests.post` to the runner for each task, nothing kept. Absolute
figures depend on the machine; compare the ratios.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import requests

HERE = Path(__file__).resolve().parent
PATIENCE_SECONDS = 600.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def environment(data: Path) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    gateway, discovery, runner = free_ports(3)
    settings = {
        "GATEWAY_PORT": str(gateway),
        "DISCOVERY_PORT": str(discovery),
        "RUNNER_PORTS_START": str(runner),
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "worker", "up", "--runners", str(HERE / "runners"), "--data", str(data)]
    process = subprocess.Popen(command, env={**os.environ, **settings})
    try:
        wait_for(lambda: requests.get(f"http://127.0.0.1:{runner}/healthz/ready", timeout=2).ok, 120)
        wait_for(lambda: "noop" in requests.get(f"http://127.0.0.1:{gateway}/algorithms", timeout=2).text, 30)
        yield f"http://127.0.0.1:{gateway}", f"http://127.0.0.1:{runner}", process
    finally:
        process.terminate()
        process.wait(60)


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if condition():
                return
        time.sleep(0.05)
    raise SystemExit("the environment did not get there in time")


def name_of(process: psutil.Process) -> str:
    words = [word for word in process.cmdline() if not word.startswith("-")]
    return words[1] if len(words) > 1 else process.name()


class Usage:
    """CPU seconds and peak memory of every process of the environment."""

    def __init__(self, root: psutil.Process) -> None:
        self.processes = [root, *root.children(recursive=True)]
        self.cpu_before = [sum(p.cpu_times()[:2]) for p in self.processes]
        self.rss_before = [p.memory_info().rss for p in self.processes]
        self.rss_peak = list(self.rss_before)

    def sample(self) -> None:
        self.rss_peak = [max(a, p.memory_info().rss) for a, p in zip(self.rss_peak, self.processes, strict=True)]

    def rows(self) -> list[tuple[str, float, float, float]]:
        cpu = [sum(p.cpu_times()[:2]) - before for p, before in zip(self.processes, self.cpu_before, strict=True)]
        mega = 1024 * 1024
        return [
            (name_of(p), used, before / mega, peak / mega)
            for p, used, before, peak in zip(self.processes, cpu, self.rss_before, self.rss_peak, strict=True)
        ]


def finished(gateway: str, algorithm: str) -> int:
    status = requests.get(f"{gateway}/status", timeout=30).json()
    for entry in status["algorithms"]:
        if entry["name"] == algorithm:
            return int(entry["tasks"]["succeeded"])
    return 0


def throughput(gateway: str, root: psutil.Process, algorithm: str, tasks: int) -> float:
    before = finished(gateway, algorithm)
    usage = Usage(root)
    session = requests.Session()
    started, started_at = time.perf_counter(), time.time()
    for start in range(0, tasks, 1000):
        part = [{"algorithm": algorithm, "payload": {"number": n}} for n in range(start, min(start + 1000, tasks))]
        session.post(f"{gateway}/tasks/batch", json=part, timeout=60).raise_for_status()
        usage.sample()
    submitted = time.perf_counter() - started
    deadline = time.monotonic() + PATIENCE_SECONDS
    while finished(gateway, algorithm) - before < tasks and time.monotonic() < deadline:
        usage.sample()
        time.sleep(0.5)  # counting is work for the gateway, too
    newest = session.get(f"{gateway}/tasks", params={"algorithm": algorithm, "limit": 1000}, timeout=30).json()
    seconds = max(datetime.fromisoformat(task["finished_at"]) for task in newest["tasks"]).timestamp() - started_at
    print(
        f"\n{algorithm}: {tasks} tasks submitted in {submitted:.1f} s ({tasks / submitted:,.0f}/s), "
        f"all results stored after {seconds:.1f} s: {tasks / seconds:,.0f} tasks/s"
    )
    print(f"  {'process':24} {'CPU s':>8} {'µs/task':>8} {'MB before':>10} {'MB peak':>8}")
    for name, cpu, before_mb, peak_mb in usage.rows():
        print(f"  {name:24} {cpu:8.1f} {cpu / tasks * 1e6:8.0f} {before_mb:10.0f} {peak_mb:8.0f}")
    return tasks / seconds


def latency(gateway: str, algorithm: str, count: int) -> None:
    session = requests.Session()
    times = []
    for n in range(count):
        started = time.perf_counter()
        answer = session.post(
            f"{gateway}/tasks", json={"algorithm": algorithm, "payload": {"number": n}}, headers={"Prefer": "wait=10"}
        )
        assert answer.status_code == 200, answer.text
        times.append((time.perf_counter() - started) * 1000)
    cuts = statistics.quantiles(times, n=100)
    print(f"\none task at a time, submit to result in the sender's hands: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")


def original_shape(runner: str, count: int) -> float:
    started = time.perf_counter()
    for n in range(count):
        requests.post(f"{runner}/run/noop", json={"number": n}, timeout=10).raise_for_status()
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, environment(Path(folder) / "data") as (gateway, runner, process):
        root = psutil.Process(process.pid)
        throughput(gateway, root, "noop", 2_000)
        latency(gateway, "noop", 300)
        single = original_shape(runner, 2_000)
        print(f"\none requests.post for each task, straight to the runner, nothing kept: {single:,.0f} tasks/s")
        for algorithm in ("noop", "noop_batched"):
            rate = throughput(gateway, root, algorithm, options.tasks)
            print(f"  = {rate / single:.1f} × the one-post-per-task shape")


if __name__ == "__main__":
    main()
