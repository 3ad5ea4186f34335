"""Registers this runner at discovery and renews its lease, in a thread of its own: serving never waits for it."""

import re
import ssl
import threading
import time
from collections.abc import Collection
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from runnerlib.contract import RunnerRegistration, clash_sentence, unregistrable
from runnerlib.contract.registry import MAX_ALGORITHMS_OF_RUNNER
from runnerlib.service.backoff import Backoff
from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: A third of a lease as it is by default; a shorter lease is renewed each third of it.
RENEW_SECONDS = 10.0
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 15.0
TIMEOUT_SECONDS = (2.0, 5.0)
#: An algorithm that belongs to another runner may be given up there: renewing this often, it works soon after that.
CLASH_SECONDS = 2.0
#: Only registrations of at most so many bytes are renewed that often: larger ones are work for discovery.
SMALL_BYTES = 32 * 1024
#: A stop waits no longer than this for discovery.
LEAVE_SECONDS = 1.0
#: An algorithm that cannot run for so long is deregistered; until then it may come back at once.
UNREADY_SECONDS = 15.0
#: Parts of the runner's readiness: the registration as a whole, and each algorithm.
_PART = "registration"
_PART_OF = "registration of "
#: Until the first answer; worker processes use the same word, which the container's probe knows.
_LOADING = "loading"
#: Statuses that say that this registration will never be accepted. Others are temporary.
_REFUSALS = (400, 401, 403, 404, 405, 409, 411, 413, 415, 422, 507)


def runner_id(name: str, address: str) -> str:
    """``name-host-port``, safe in a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name}-{address}")[:200]


class AdvertisedAlgorithms:
    """Those that can run, and for a moment those that just could. Times are seconds of one monotonic clock. Pure."""

    def __init__(self) -> None:
        self._working: frozenset[str] = frozenset()
        #: algorithm that no longer works → when that was first seen
        self._lost_at: dict[str, float] = {}

    def at(self, now: float, working: Collection[str]) -> frozenset[str]:
        """What to register now that these can run."""
        for name in self._working.difference(working):
            self._lost_at[name] = now
        self._working = frozenset(working)
        self._lost_at = {
            name: lost_at
            for name, lost_at in self._lost_at.items()
            if name not in self._working and now < lost_at + UNREADY_SECONDS
        }
        return self._working.union(self._lost_at)

    def unchanged_seconds(self, now: float) -> float | None:
        """How long that stays the same while the same can run; None when nothing will be removed."""
        if not self._lost_at:
            return None
        return min(self._lost_at.values()) + UNREADY_SECONDS - now


class Registration:
    """Registers the algorithms that work, renews, and deregisters the runner when none does, or when stopped.

    `health` says why discovery refuses the runner, and for each algorithm why it gets no tasks. A discovery that
    does not answer makes no runner unready. `token`: the runner's own, with its name; empty: it has none. `tls`: whom
    to trust where discovery speaks HTTPS.
    """

    def __init__(
        self,
        discovery: str,
        registration: RunnerRegistration,
        health: Health,
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        address = registration.host.partition("://")[2]
        self._url = f"{discovery}/runners/{runner_id(registration.name, address)}"
        self._registration = registration
        self._health = health
        self._tls = tls
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._advertised = AdvertisedAlgorithms()
        self._backoff = Backoff(FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, least=0.5)
        self._working: Collection[str] = ()
        self._sent: frozenset[str] = frozenset()
        self._clashes: dict[str, str] = {}
        self._changed = threading.Event()
        self._leaving = False
        self._registered = False
        self._refused = unregistrable(registration.algorithms)
        for name, reason in self._refused.items():
            log.error("an algorithm cannot be registered and gets no tasks", algorithm=name, reason=reason)
            health.set(f"{_PART_OF}{name}", False, f"it cannot be registered and gets no tasks: {reason}")
        if len(self._refused) < len(registration.algorithms):
            health.set(_PART, False, _LOADING)
        self._thread = threading.Thread(target=self._live, name="registration", daemon=True)

    def advertise(self, working: Collection[str]) -> None:
        """Tells it which algorithms can run from now on. Safe from any thread."""
        self._working = working
        self._changed.set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Deregisters the runner if discovery answers in time; else the end of the lease does."""
        self._leaving = True
        self._changed.set()
        self._thread.join(LEAVE_SECONDS)

    def _live(self) -> None:
        with requests.Session() as session:
            # Discovery is in the same network: a proxy for the outside would not find it.
            session.trust_env = False
            session.headers.update(self._headers)
            if self._tls is not None:
                session.mount("https://", _Trusting(self._tls))
            while not self._leaving:
                self._changed.clear()
                try:
                    seconds = self._step(session)
                except Exception as error:  # the outermost level of this thread: it tries again later
                    log.exception("registering failed; trying on", url=self._url)
                    self._health.set(_PART, False, f"registering failed, {type(error).__name__}: {_short(error)}")
                    seconds = MAX_BACKOFF_SECONDS
                self._changed.wait(seconds)
            if self._registered:
                self._leave(session)

    def _step(self, session: requests.Session) -> float:
        """Does what is due; returns the seconds until the next step."""
        now = time.monotonic()
        names = self._advertised.at(now, self._working).difference(self._refused)
        if names:
            due = self._register(session, names)
            left = self._advertised.unchanged_seconds(now)
            return due if left is None else min(due, max(0.0, left))
        if self._registered:
            self._leave(session)
        return RENEW_SECONDS

    def _register(self, session: requests.Session, names: frozenset[str]) -> float:
        """Registers these, or renews; returns the seconds until that is due again."""
        offered = [one for one in self._registration.algorithms if one.name in names]
        kept = [one.name for one in self._registration.algorithms if one.name not in names][:MAX_ALGORITHMS_OF_RUNNER]
        update = {"algorithms": offered, "keeps": kept}
        body = self._registration.model_copy(update=update).model_dump_json().encode()
        answer = self._call(session, "PUT", body)
        if isinstance(answer, requests.Response) and answer.ok:
            if not self._registered or names != self._sent:
                log.info("registered", url=self._url, algorithms=[one.name for one in offered])
            self._registered, self._sent = True, names
            self._backoff.reset()
            self._health.set(_PART, True)
            content = _content(answer)
            self._report_clashes(content)
            is_soon = self._clashes and len(body) <= SMALL_BYTES
            return min(_renew_seconds(content), CLASH_SECONDS if is_soon else RENEW_SECONDS)
        reason = self._failure(answer)
        seconds = self._backoff.next_seconds()
        if (failures := self._backoff.failures) in (1, 5) or failures % 20 == 0:
            log.warning("cannot register; trying on", url=self._url, reason=reason, failures=failures)
        return seconds

    def _failure(self, answer: requests.Response | str) -> str:
        """Why the runner is not registered. A temporary failure does not make it unready."""
        is_refused = False
        if not isinstance(answer, str):
            is_refused = answer.status_code in _REFUSALS
            answer = f"{answer.status_code}: {_content(answer).get('detail') or answer.text[:500]}"
        if is_refused:
            self._health.set(_PART, False, f"discovery refuses it, so it gets no tasks: {answer}")
        elif self._health.reasons.get(_PART) == _LOADING:
            self._health.set(_PART, True)
        return answer

    def _report_clashes(self, content: dict[str, Any]) -> None:
        sent = content.get("clashes")
        clashes = {str(name): str(owner) for name, owner in sent.items()} if isinstance(sent, dict) else {}
        for name in self._clashes.keys() - clashes.keys():
            log.info("an algorithm is this runner's now", algorithm=name)
            self._health.set(f"{_PART_OF}{name}", True)
        for name, owner in clashes.items():
            if self._clashes.get(name) != owner:
                reason = clash_sentence(name, owner, self._registration.name)
                log.error("an algorithm belongs to another runner", algorithm=name, owner=owner, reason=reason)
                self._health.set(f"{_PART_OF}{name}", False, reason)
        self._clashes = clashes

    def _leave(self, session: requests.Session) -> None:
        answer = self._call(session, "DELETE", None)
        refused = (
            answer if isinstance(answer, str) else "" if answer.ok else f"{answer.status_code}: {answer.text[:500]}"
        )
        log.info("taken off the list", url=self._url, reason=refused)
        self._registered = False

    def _call(self, session: requests.Session, method: str, body: bytes | None) -> requests.Response | str:
        """The response, or why there was none."""
        # With the boot id of this process: another may have registered under this id meanwhile.
        query = None if body is not None else {"boot": self._registration.boot}
        try:
            return session.request(
                method, self._url, params=query, data=body, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            return f"{type(error).__name__}: {_short(error)}"


class _Trusting(HTTPAdapter):
    """Connections whose certificates are checked by a context: requests itself knows a single file of authorities."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._tls, **options)


def _content(answer: requests.Response) -> dict[str, Any]:
    """Empty when it is no JSON object: another registry may answer anything."""
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _renew_seconds(content: dict[str, Any]) -> float:
    """A third of the lease, if the registry says how long it is."""
    lease = content.get("lease_seconds")
    if isinstance(lease, bool) or not isinstance(lease, int | float) or not lease > 0:
        return RENEW_SECONDS
    return min(RENEW_SECONDS, lease / 3)


def _short(error: Any) -> str:
    return str(error)[:300]
