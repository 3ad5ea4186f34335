"""One connection to the gateway: JSON there, JSON back, and every foreign error as one of ours."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests

from producer.errors import GatewayUnreachable, Refused, refusal
from producer.steps import Ask

#: The gateway holds a request for at most a minute; this leaves it time to answer.
READ_SECONDS = 75.0
CONNECT_SECONDS = 5.0
#: Answers that mean "the same again, a little later".
_AGAIN = (429, 503)
_FIRST_PAUSE_SECONDS = 0.05
_MOST_PAUSE_SECONDS = 2.0
_OWN_MACHINE = ("127.0.0.1", "::1", "localhost")


class Transport:
    """For one thread. Every call can be repeated safely, so it is, while the gateway restarts or is busy.

    A process that was forked gets connections of its own: on its parent's, each would read the other's answers.
    """

    def __init__(self, url: str, *, patience_seconds: float, url_from: str = "") -> None:
        self.url = url.rstrip("/")
        self._url_from = url_from
        self._patience_seconds = patience_seconds
        self._session = self._new_session()
        self._process = os.getpid()
        self._has_answered = False

    def close(self) -> None:
        if self._process == os.getpid():
            self._session.close()

    def ask(self, ask: Ask) -> Any:
        """The answer's JSON. Raises GatewayUnreachable and Refused.

        A gateway that never answered is not restarting, so that is told at once.
        """
        again = again_after(self._patience_seconds)
        while True:
            try:
                return self._once(ask)
            except Refused as error:
                if not may_pass(error) or not next(again, 0):
                    raise
            except LostConnection as error:
                if (error.nobody_listens and not self._has_answered) or not next(again, 0):
                    raise GatewayUnreachable(str(error)) from None

    def _once(self, ask: Ask) -> Any:
        try:
            answer = self._own_session().request(
                ask.method,
                self.url + ask.path,
                params=ask.query,
                data=ask.body,
                headers=ask.headers,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
            )
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise LostConnection(nobody_answers(self.url, self._url_from), _nobody_listens(error)) from None
        except requests.exceptions.Timeout:
            raise GatewayUnreachable(f"the gateway at {self.url} takes too long to answer; ask again") from None
        except (requests.exceptions.RequestException, ValueError) as error:  # urllib3's own, about a host's name
            raise GatewayUnreachable(cannot_be_asked(self.url, error, self._url_from)) from None
        content = read_answer(self.url, answer.status_code, answer.content)
        self._has_answered = True
        return content

    def _own_session(self) -> requests.Session:
        if self._process != os.getpid():
            self._session, self._process = self._new_session(), os.getpid()
        return self._session

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = not is_own_machine(self.url)
        return session


class LostConnection(Exception):
    """The connection broke before the answer was there, or was never made (`nobody_listens`)."""

    def __init__(self, message: str, nobody_listens: bool) -> None:
        super().__init__(message)
        self.nobody_listens = nobody_listens


def pauses(patience_seconds: float) -> Iterator[float]:
    """How long to wait before the same is asked again; ends when the patience is over."""
    end = time.monotonic() + patience_seconds
    pause = _FIRST_PAUSE_SECONDS
    while time.monotonic() + pause <= end:
        yield pause
        pause = min(2 * pause, _MOST_PAUSE_SECONDS)


def again_after(patience_seconds: float) -> Iterator[float]:
    """The same, and waits."""
    for pause in pauses(patience_seconds):
        time.sleep(pause)
        yield pause


def may_pass(error: Refused) -> bool:
    """Whether the same may be taken a little later."""
    return error.status in _AGAIN


def is_own_machine(url: str) -> bool:
    """A proxy that the environment names cannot reach this machine's own addresses."""
    try:
        return urlsplit(url).hostname in _OWN_MACHINE
    except ValueError:  # it is no address: whoever asks there says so
        return False


def read_answer(url: str, status: int, body: bytes) -> Any:
    """The JSON of an answer. Raises Refused, and GatewayUnreachable when it is not a gateway's."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if status in (200, 202) and content is not None:
        return content
    if not isinstance(content, dict) or "code" not in content:
        raise GatewayUnreachable(
            f"what answers at {url} is not our gateway (status {status}); check the gateway's address"
        )
    raise refusal({"status": status, **content})


def nobody_answers(url: str, url_from: str) -> str:
    source = f" ({url_from})" if url_from else ""
    return f"no gateway answers at {url}{source}; start the environment with `worker up`, or set GATEWAY_URL"


def cannot_be_asked(url: str, why: object, url_from: str) -> str:
    source = f" ({url_from})" if url_from else ""
    return f"{url}{source} cannot be asked: {why}; check the gateway's address"


def _nobody_listens(error: requests.exceptions.RequestException) -> bool:
    """urllib3 gives a reason when it gave up connecting; a connection that broke later has none."""
    return getattr(error.args[0] if error.args else None, "reason", None) is not None
