"""What attacks on the listening ports cost honest senders: p95 of their requests, beside a stub that takes the same.

    .venv/bin/python benchmarks/doors.py [--seconds 10] [--rounds 3]

In each round every attack (tests/lib/door_attacks.py: least urgent, at a bounded rate) goes once to gateway, discovery
and runner, and once to a stub in a process of its own that reads and drops whatever comes, while an honest sender
sends one task after the other and waits for its result. The ratio says what our services make of an attack, beyond
what it takes from the machine anyway.
"""

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from spine import environment

from worker.state_file import read_state

ATTACKS = Path(__file__).resolve().parent.parent / "tests" / "lib" / "door_attacks.py"
NAMES = ("endless-header", "many-headers", "slow-heads", "slow-bodies", "silent", "nested", "gzip-bomb")
_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def stub() -> None:
    """Three ports of one process, printed; each connection's bytes are read and dropped, and answered at their end."""

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""
        try:
            while data := await reader.read(65_536):
                tail = (tail + data)[-3:]
                if tail == b"[]]":
                    writer.write(_ANSWER)
        except OSError:
            pass
        finally:
            writer.close()

    servers = [await asyncio.start_server(take, "127.0.0.1", 0, backlog=2048) for _ in range(3)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


@contextmanager
def stub_urls(paths: list[str]) -> Iterator[list[str]]:
    process = subprocess.Popen([sys.executable, __file__, "--stub"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield [
            f"http://127.0.0.1:{port}{path}"
            for port, path in zip(process.stdout.readline().split(), paths, strict=True)
        ]
    finally:
        process.kill()
        process.wait()


def p95_ms(session: requests.Session, gateway: str, seconds: float) -> float:
    """Of single tasks, one after the other, with a pause of 10 ms between them."""
    times, ends_at = [], time.monotonic() + seconds
    while time.monotonic() < ends_at:
        began_at = time.perf_counter()
        answer = session.post(f"{gateway}/algorithms/noop/run", json={"number": 1}, timeout=60)
        times.append((time.perf_counter() - began_at) * 1000)
        assert answer.status_code == 200, answer.text
        time.sleep(0.01)
    return statistics.quantiles(times, n=20)[-1]


@contextmanager
def attack(name: str, seconds: float, urls: list[str]) -> Iterator[None]:
    variables = {**os.environ, "SILENT_CONNECTIONS": "6000"}  # to each of three; what one process can have
    command = [sys.executable, str(ATTACKS), name, str(seconds), *urls]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=variables)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="ATTACK", help=", ".join(NAMES))
    parser.add_argument("--stub", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stub:
        asyncio.run(stub())
    paths = ["/tasks/batch", "/runners/x", "/batch/noop"]
    with (
        tempfile.TemporaryDirectory() as data,
        environment(Path(data)) as (gateway, runner, _),
        stub_urls(paths) as stubs,
        requests.Session() as session,
    ):
        discovery = read_state(Path(data)).discovery
        ours = [base + path for base, path in zip((gateway, discovery, runner), paths, strict=True)]
        p95_ms(session, gateway, 3)
        print(f"quiet: p95 {p95_ms(session, gateway, options.seconds):.1f} ms")
        print(f"{'attack':16} {'ours ms':>9} {'stub ms':>9} {'ratio':>7}  (range of {options.rounds})")
        for name in options.only:
            pairs = []
            for number in range(options.rounds):
                found = {}
                for urls in (ours, stubs) if number % 2 else (stubs, ours):
                    with attack(name, options.seconds + 60, urls):
                        found[urls is ours] = p95_ms(session, gateway, options.seconds)
                    time.sleep(1)
                pairs.append((found[True], found[False]))
            ratios = sorted(mine / others for mine, others in pairs)
            mine, others = (statistics.median(pair[index] for pair in pairs) for index in (0, 1))
            middle = statistics.median(ratios)
            print(f"{name:16} {mine:9.1f} {others:9.1f} {middle:7.2f}  ({ratios[0]:.2f}-{ratios[-1]:.2f})", flush=True)


if __name__ == "__main__":
    main()
