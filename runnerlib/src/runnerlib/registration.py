"""Tells discovery that this runner is there, again and again, from a thread that never holds up the serving."""

import random
import re
import threading
import time
from collections.abc import Collection
from typing import Any

import requests

from runnerlib.contract import RunnerRegistration
from runnerlib.offer import Offer
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: A third of a lease as it is by default; a shorter lease is renewed each third of it.
RENEW_SECONDS = 10.0
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 15.0
TIMEOUT_SECONDS = (2.0, 5.0)
#: A stop is held up no longer than this.
LEAVE_SECONDS = 1.0


def runner_id(name: str, address: str) -> str:
    """``name-host-port``, safe in a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name}-{address}")[:200]


class Registration:
    """Registers the algorithms that work, renews, and takes the runner off the list when none does, or when stopped."""

    def __init__(self, discovery: str, registration: RunnerRegistration) -> None:
        address = registration.host.partition("://")[2]
        self._url = f"{discovery}/runners/{runner_id(registration.name, address)}"
        self._registration = registration
        self._offer = Offer()
        self._working: Collection[str] = ()
        self._told: frozenset[str] = frozenset()
        self._changed = threading.Event()
        self._leaving = False
        self._registered = False
        self._failures = 0
        self._thread = threading.Thread(target=self._live, name="registration", daemon=True)

    def offer(self, working: Collection[str]) -> None:
        """These algorithms can run from now on. Safe from any thread."""
        self._working = working
        self._changed.set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Takes the runner off the list, if discovery answers in time; else the end of the lease does it."""
        self._leaving = True
        self._changed.set()
        self._thread.join(LEAVE_SECONDS)

    def _live(self) -> None:
        with requests.Session() as session:
            # Discovery is next door: a proxy for the outside would not find it.
            session.trust_env = False
            session.headers["Content-Type"] = "application/json"
            while not self._leaving:
                self._changed.clear()
                self._changed.wait(self._step(session))
            if self._registered:
                self._leave(session)

    def _step(self, session: requests.Session) -> float:
        """Does what is due; the seconds until the next look."""
        now = time.monotonic()
        names = self._offer.at(now, self._working)
        if names:
            due = self._register(session, names)
            left = self._offer.unchanged_seconds(now)
            return due if left is None else min(due, max(0.0, left))
        if self._registered:
            self._leave(session)
        return RENEW_SECONDS

    def _register(self, session: requests.Session, names: frozenset[str]) -> float:
        """Offers these, or renews; the seconds until that is due again."""
        offered = [one for one in self._registration.algorithms if one.name in names]
        body = self._registration.model_copy(update={"algorithms": offered}).model_dump_json().encode()
        answer = self._call(session, "PUT", body)
        if isinstance(answer, requests.Response):
            if not self._registered or names != self._told:
                log.info("registered", url=self._url, algorithms=[one.name for one in offered])
            self._registered, self._told, self._failures = True, names, 0
            return _renew_seconds(answer)
        self._failures += 1
        most = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(10, self._failures - 1))
        if self._failures in (1, 5) or self._failures % 20 == 0:
            log.warning("cannot register; trying on", url=self._url, reason=answer, failures=self._failures)
        # Jitter, so that a whole environment does not come back in one instant.
        return random.uniform(most / 2, most)  # noqa: S311 - no secret

    def _leave(self, session: requests.Session) -> None:
        answer = self._call(session, "DELETE", None)
        log.info("taken off the list", url=self._url, reason=answer if isinstance(answer, str) else "")
        self._registered = False

    def _call(self, session: requests.Session, method: str, body: bytes | None) -> requests.Response | str:
        """The answer when it was accepted, else why not."""
        try:
            answer = session.request(method, self._url, data=body, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        except requests.RequestException as error:
            return f"{type(error).__name__}: {_short(error)}"
        if answer.ok:
            return answer
        return f"{answer.status_code}: {answer.text[:500]}"


def _renew_seconds(answer: requests.Response) -> float:
    """Discovery tells how long its lease is; another registry may tell nothing."""
    try:
        content = answer.json()
    except ValueError:
        return RENEW_SECONDS
    lease = content.get("lease_seconds") if isinstance(content, dict) else None
    if isinstance(lease, bool) or not isinstance(lease, int | float) or not lease > 0:
        return RENEW_SECONDS
    return min(RENEW_SECONDS, lease / 3)


def _short(error: Any) -> str:
    return str(error)[:300]
