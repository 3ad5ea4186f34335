"""Connects to a host, after looking at the very address that is connected to: the one place where that happens.

A name is looked up once, and what came of it is checked and then connected to as numbers: whoever answers the next
question with another address (DNS rebinding) is not asked one. It makes no difference how an address was spelt, for
what the system reads out of it is what is checked.
"""

import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any

from runnerlib.fetching.addresses import AddressRules
from runnerlib.fetching.deadline import Deadline
from runnerlib.fetching.errors import FetchRefused
from runnerlib.fetching.urls import Target
from runnerlib.service.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class _Found:
    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]

    @property
    def address(self) -> str:
        return str(self.sockaddr[0])


def connect(target: Target, rules: AddressRules, deadline: Deadline) -> socket.socket:
    """A socket to one of the target's addresses that may be connected to. Raises FetchRefused and OSError."""
    allowed = _allowed(target, _look_up(target, deadline), rules)
    while True:
        found = allowed.pop(0)
        # One address that does not answer must not take the time of the others.
        patience = deadline.left() / (len(allowed) + 1)
        sock = socket.socket(found.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(patience)
            sock.connect(found.sockaddr)
            return sock
        except OSError:
            sock.close()
            if not allowed:
                raise


def _allowed(target: Target, found: list[_Found], rules: AddressRules) -> list[_Found]:
    public = [one for one in found if not rules.refuses_address(one.address)]
    if not public:
        # Only the log says which: what names inside lead to is nothing for senders to find out.
        log.warning("not fetched: not a public address", host=target.host, addresses=[one.address for one in found])
        raise FetchRefused(
            f"{target.shown} is not at a public address; send one that is, or let the operator of the runner allow it "
            "in FETCH_ALLOW_PRIVATE"
        )
    allowed = [one for one in public if not rules.refuses_port(one.address, target.port)]
    if not allowed:
        raise FetchRefused(
            f"{target.shown} is at port {target.port}; send one at port {' or '.join(map(str, sorted(rules.ports)))}, "
            "or let the operator of the runner allow it in FETCH_PORTS"
        )
    return allowed


def _look_up(target: Target, deadline: Deadline) -> list[_Found]:
    """In a thread, which may be left behind: looking up a name knows no time limit. Raises OSError."""
    answers: queue.SimpleQueue[list[_Found] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            # As bytes: Python would make another name of some that are not ASCII.
            found = socket.getaddrinfo(target.host.encode(), target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put(error)
        else:
            answers.put([_Found(family, sockaddr) for family, _, _, _, sockaddr in found])

    left = deadline.left()
    threading.Thread(target=look_up, name="fetch-look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=left)
    except queue.Empty:
        raise TimeoutError(f"the name {target.host} was not looked up in time") from None
    if isinstance(answer, OSError):
        raise answer
    return answer
