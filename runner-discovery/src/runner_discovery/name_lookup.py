"""What names of runners' hosts stand for, without anybody being held up by somebody's slow names."""

import asyncio
import socket
import time
from collections.abc import Callable

from runner_discovery.errors import LookupPending
from runnerlib.service.addresses import Address, address_of

#: A registration waits no longer for a name. Its runner sends it again, and finds what was found meanwhile.
WAIT_SECONDS = 0.5
#: Look-ups at the same time: the system's take as long as they take, and their threads are few.
MOST_PENDING = 3
#: An answer that came too late for whoever asked is kept for so long: it is asked for again.
FRESH_SECONDS = 5.0
_MOST_ANSWERS = 256


class NameLookup:
    """`clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: by who asked for it: one at a time
        self._pending: dict[str, tuple[str, asyncio.Task[list[Address] | None]]] = {}
        self._answers: dict[str, tuple[float, list[Address]]] = {}

    async def addresses(self, name: str, who: str) -> list[Address]:
        """Empty for a name that is none. Raises LookupPending while that is not known; ask again."""
        at, known = self._answers.get(name, (-FRESH_SECONDS, []))
        if self._clock() - at < FRESH_SECONDS:
            return known
        pending = next((task for of, task in self._pending.values() if of == name), None)
        if pending is None:
            if who in self._pending or len(self._pending) >= MOST_PENDING:
                raise LookupPending
            pending = asyncio.create_task(self._look_up(name), name=f"look-up of {name}")
            self._pending[who] = name, pending
            pending.add_done_callback(lambda _: self._pending.pop(who, None))
        done, _ = await asyncio.wait([pending], timeout=WAIT_SECONDS)
        found = pending.result() if done else None
        if found is None:
            raise LookupPending
        self._answers.pop(name, None)
        return found

    async def _look_up(self, name: str) -> list[Address] | None:
        """None: it could not be found out."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except UnicodeError:
            found = []
        except OSError as error:
            if getattr(error, "errno", None) == socket.EAI_AGAIN:
                return None
            found = []
        addresses = [address for each in found if (address := address_of(str(each[4][0]))) is not None]
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.clear()
        self._answers[name] = self._clock(), list(dict.fromkeys(addresses))
        return self._answers[name][1]
