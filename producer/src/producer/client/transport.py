"""Requests to the gateway over `requests`: JSON in, JSON out, every foreign error translated to one of ours."""

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests

from producer.client.steps import Request, retry_pauses
from producer.errors import CLOSED, GatewayUnreachable, Refused, refusal

#: The gateway holds a request for at most a minute; this leaves it time to answer.
READ_SECONDS = 75.0
CONNECT_SECONDS = 5.0
#: Statuses after which the same request is sent again a little later.
_RETRIED_STATUSES = (429, 503)
_OWN_MACHINE = ("127.0.0.1", "::1", "localhost")


class Transport:
    """Connections to the gateway: one for each request in progress, kept open for later ones. Any thread may use it.

    Every request is safe to repeat, so it is repeated while the gateway is away. After a fork the child connects by
    itself: on a shared connection each process would read the other's answers.

    Parameters:
        patience_seconds: how long a request is repeated while the gateway restarts or is busy.
        url_from: where the address was found, for the error when nothing answers there.
    """

    def __init__(self, url: str, *, patience_seconds: float, url_from: str = "") -> None:
        self.url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._url_from = url_from
        self._free: deque[requests.Session] = deque()
        self._process = os.getpid()
        self._has_answered = False
        self._closed = False

    def send(self, request: Request) -> Any:
        """The answer's JSON. Raises GatewayUnreachable and Refused."""
        if self._closed:
            raise GatewayUnreachable(CLOSED)
        pauses = retry_pauses(self._patience_seconds)
        while True:
            try:
                return self._send_once(request)
            except (Refused, LostConnection) as error:
                pause = pause_before_retry(error, pauses, has_answered=self._has_answered)
            time.sleep(pause)

    def close(self) -> None:
        """Closes the connections; those in use, when their requests end. Idempotent."""
        self._closed = True
        self._close_free()

    def _send_once(self, request: Request) -> Any:
        session = self._free_session()
        try:
            answer = session.request(
                request.method,
                self.url + request.path,
                params=request.query,
                data=request.body,
                headers=request.headers,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
            )
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            # urllib3 gives a reason when it gave up connecting; a connection that broke later has none.
            has_connected = getattr(error.args[0] if error.args else None, "reason", None) is None
            raise LostConnection(nothing_answers(self.url, self._url_from), has_connected=has_connected) from None
        except requests.exceptions.Timeout:
            raise GatewayUnreachable(too_slow(self.url)) from None
        except (requests.exceptions.RequestException, ValueError) as error:  # urllib3's own, about a host's name
            raise GatewayUnreachable(bad_address(self.url, error, self._url_from)) from None
        finally:
            self._free.append(session)
            if self._closed:
                self._close_free()
        content = read_answer(self.url, answer.status_code, answer.content)
        self._has_answered = True
        return content

    def _free_session(self) -> requests.Session:
        if self._process != os.getpid():
            self._free, self._process = deque(), os.getpid()
        try:
            return self._free.pop()
        except IndexError:
            session = requests.Session()
            session.trust_env = not is_own_machine(self.url)
            return session

    def _close_free(self) -> None:
        while self._free and self._process == os.getpid():
            try:
                self._free.pop().close()
            except IndexError:  # another thread closes them, too
                return


class LostConnection(Exception):
    """No connection was made, or it broke before the answer was there (`has_connected`)."""

    def __init__(self, message: str, *, has_connected: bool) -> None:
        super().__init__(message)
        self.has_connected = has_connected


def pause_before_retry(error: Refused | LostConnection, pauses: Iterator[float], *, has_answered: bool) -> float:
    """How long to wait before the request is sent again. Raises the error for the caller when it is not.

    A gateway that never answered is not restarting, so that is reported at once.
    """
    problem = error if isinstance(error, Refused) else GatewayUnreachable(str(error))
    if isinstance(error, Refused):
        is_passing = error.status in _RETRIED_STATUSES
    else:
        is_passing = error.has_connected or has_answered
    pause = next(pauses, None) if is_passing else None
    if pause is None:
        raise problem from None
    return pause


def is_own_machine(url: str) -> bool:
    """Whether to ignore a proxy that the environment names: it cannot reach this machine's own addresses."""
    try:
        return urlsplit(url).hostname in _OWN_MACHINE
    except ValueError:  # not an address: the request will say so
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


def nothing_answers(url: str, url_from: str = "") -> str:
    source = f" ({url_from})" if url_from else ""
    return f"no gateway answers at {url}{source}; start the environment with `worker up`, or set GATEWAY_URL"


def too_slow(url: str) -> str:
    return f"the gateway at {url} takes too long to answer; ask again"


def bad_address(url: str, why: object, url_from: str = "") -> str:
    source = f" ({url_from})" if url_from else ""
    return f"{url}{source} cannot be asked: {why}; check the gateway's address"
