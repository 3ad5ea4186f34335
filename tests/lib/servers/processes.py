"""What servers of any kind need: free ports, and signals to a whole family of processes."""

import contextlib
import itertools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psutil

_SLICES, _SLICE_PORTS = 8, 1_500


def _ports() -> Iterator[int]:
    """Below the range from which the kernel takes ports for outgoing connections: a killed server gets its port back.

    Each of the processes that run tests beside each other has ports of its own, since a port that nobody listens on
    may be that of another's server which is about to start; and none comes again before all others have.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + number % _SLICES * _SLICE_PORTS
    while True:
        yield from random.sample(range(first, first + _SLICE_PORTS), _SLICE_PORTS)


_NEXT_PORTS = _ports()


def free_port() -> int:
    """A port that nobody listens on, good for a server that is killed and started again."""
    for port in itertools.islice(_NEXT_PORTS, _SLICE_PORTS):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_seconds:.0f} s: {what}")
        pause.wait(0.05)


def family(pid: int) -> list[psutil.Process]:
    """The process and all that it started, the youngest first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [*reversed(parent.children(recursive=True)), parent]
    return []


def signal_family(pid: int, number: signal.Signals) -> None:
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_family(pid: int) -> None:
    """SIGKILL to all of them; returns when they are gone.

    The parent first, and frozen before its children are listed: PostgreSQL's starts others at any time.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).suspend()
    members = family(pid)
    for process in reversed(members):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(members, timeout=10)
