"""What servers of any kind need: free ports, and signals to a whole family of processes."""

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Callable

import psutil

#: Below the range from which the kernel takes ports for outgoing connections: a killed server gets its port back.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port that nobody listens on, good for a server that is killed and started again."""
    for port in random.sample(_PORTS, 200):
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
