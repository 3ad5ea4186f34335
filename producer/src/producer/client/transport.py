"""Requests to the gateway over `requests`: JSON in, JSON out, every foreign error translated to one of ours."""

import json
import os
import re
import ssl
import time
from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from producer.client.steps import Request, retry_pauses
from producer.errors import CLOSED, GatewayUnreachable, ProducerError, refusal

#: The gateway holds a request for at most a minute; this leaves it time to answer.
READ_SECONDS = 75.0
CONNECT_SECONDS = 5.0
#: Statuses after which the same request is sent again a little later.
_RETRIED_STATUSES = (429, 503)
_TOKEN = re.compile(r"[\x21-\x7e]*")
_OWN_MACHINE = ("127.0.0.1", "::1", "localhost")


def checked_token(token: str) -> str:
    """Raises ValueError, which does not repeat it, for what cannot be a token."""
    if _TOKEN.fullmatch(token) is None:
        raise ValueError("a token has printable ASCII characters only, and no spaces; check where it comes from")
    return token


def trusted(ca_file: str) -> ssl.SSLContext | None:
    """Trusts the system's authorities and those in the file. Raises ValueError for a file that has none."""
    if not ca_file:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{ca_file!r} has no certificates ({error.strerror or error}); name a PEM file") from None
    return context


class TryAgain(Exception):
    """The request was not answered, or refused for now; `error` is for the caller when it is not sent again.

    `after_seconds` is the gateway's Retry-After.
    """

    def __init__(self, error: ProducerError, after_seconds: float = 0) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_seconds = after_seconds


class Endpoint:
    """The gateway's address: how answers are read, what errors say, and when a request is sent again.

    Every request is safe to repeat, so it is repeated while the gateway is away.

    Parameters:
        patience_seconds: how long a request is repeated while the gateway restarts or is busy.
        url_from: where the address was found, for the error when nothing answers there.
        token: sent with each request; empty: none is. Raises ValueError for what cannot be one.
        ca_file: PEM file with authorities that are trusted besides the system's; empty: none. Raises ValueError, too.
    """

    def __init__(
        self, url: str, *, patience_seconds: float, url_from: str = "", token: str = "", ca_file: str = ""
    ) -> None:
        self.url = url.rstrip("/")
        self.token = checked_token(token)
        self.tls = trusted(ca_file)
        self._patience_seconds = patience_seconds
        self._source = f" ({url_from})" if url_from else ""
        self._has_answered = False
        self._closed = False

    def read_answer(self, status: int, body: bytes, retry_after: str | None) -> Any:
        """The JSON of an answer. Raises Refused, TryAgain, and GatewayUnreachable when it is not a gateway's."""
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if status in (200, 201, 202) and content is not None:
            self._has_answered = True
            return content
        if not isinstance(content, dict) or "code" not in content:
            raise GatewayUnreachable(
                f"what answers at {self.url} is not our gateway (status {status}); check the gateway's address"
            )
        refused = refusal({"status": status, **content})
        if status not in _RETRIED_STATUSES:
            raise refused
        raise TryAgain(refused, float(retry_after) if retry_after and retry_after.isdecimal() else 0)

    def pauses(self) -> Iterator[float]:
        """The pauses between the attempts of one request, as long as the patience lasts."""
        return retry_pauses(self._patience_seconds)

    def pause_before_retry(self, again: TryAgain, pauses: Iterator[float]) -> float:
        """How long to wait before the request is sent again. Raises the error for the caller when it is not."""
        if (pause := next(pauses, None)) is None:
            raise again.error from None
        return max(pause, min(again.after_seconds, self._patience_seconds))

    def require_open(self) -> None:
        """Raises GatewayUnreachable after the client was closed."""
        if self._closed:
            raise GatewayUnreachable(CLOSED)

    def lost_connection(self, *, has_connected: bool) -> GatewayUnreachable | TryAgain:
        """No connection was made, or it broke before the answer was there (`has_connected`).

        A gateway that never answered is not restarting, so that is reported at once.
        """
        advice = "start the environment with `worker up`, or set GATEWAY_URL"
        error = GatewayUnreachable(f"no gateway answers at {self.url}{self._source}; {advice}")
        return TryAgain(error) if has_connected or self._has_answered else error

    def not_trusted(self, why: object) -> GatewayUnreachable:
        return GatewayUnreachable(
            f"{self.url}{self._source} cannot be trusted: {why}; if an authority of your own signs for it, name "
            "its PEM file in CA_CERTIFICATES_FILE (in Python: ca_file)"
        )

    def too_slow(self) -> GatewayUnreachable:
        return GatewayUnreachable(f"the gateway at {self.url} takes too long to answer; ask again")

    def bad_address(self, why: object) -> GatewayUnreachable:
        return GatewayUnreachable(f"{self.url}{self._source} cannot be asked: {why}; check the gateway's address")

    @property
    def uses_proxy(self) -> bool:
        """Whether a proxy that the environment names is used. It cannot reach this machine's own addresses."""
        try:
            return urlsplit(self.url).hostname not in _OWN_MACHINE
        except ValueError:  # not an address: the request will say so
            return True


class Transport(Endpoint):
    """Connections to the gateway: one for each request in progress, kept open for later ones. Any thread may use it.

    After a fork the child connects by itself: on a shared connection each process would read the other's answers.
    """

    def __init__(
        self, url: str, *, patience_seconds: float, url_from: str = "", token: str = "", ca_file: str = ""
    ) -> None:
        super().__init__(url, patience_seconds=patience_seconds, url_from=url_from, token=token, ca_file=ca_file)
        self._auth = _Bearer(token) if token else None
        self._free: deque[requests.Session] = deque()
        self._process = os.getpid()

    def send(self, request: Request) -> Any:
        """The answer's JSON. Raises GatewayUnreachable and Refused."""
        self.require_open()
        pauses = self.pauses()
        while True:
            try:
                return self._send_once(request)
            except TryAgain as again:
                pause = self.pause_before_retry(again, pauses)
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
                auth=self._auth,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
            )
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            # urllib3 gives a reason when it gave up connecting; a connection that broke later has none.
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            if isinstance(cause := _cause(reason), ssl.SSLCertVerificationError):
                raise self.not_trusted(cause.verify_message) from None
            has_connected = reason is None
            raise self.lost_connection(has_connected=has_connected) from None
        except requests.exceptions.Timeout:
            raise self.too_slow() from None
        except (requests.exceptions.RequestException, ValueError) as error:  # urllib3's own, about a host's name
            raise self.bad_address(error) from None
        finally:
            self._free.append(session)
            if self._closed:
                self._close_free()
        return self.read_answer(answer.status_code, answer.content, answer.headers.get("Retry-After"))

    def _free_session(self) -> requests.Session:
        if self._process != os.getpid():
            self._free, self._process = deque(), os.getpid()
        try:
            return self._free.pop()
        except IndexError:
            session = requests.Session()
            session.trust_env = self.uses_proxy
            if self.tls is not None:
                session.mount("https://", _Trusting(self.tls))
            return session

    def _close_free(self) -> None:
        while self._free and self._process == os.getpid():
            try:
                self._free.pop().close()
            except IndexError:  # another thread closes them, too
                return


def _cause(error: Any) -> Any:
    """What urllib3 has wrapped."""
    return error.args[0] if isinstance(error, urllib3.exceptions.SSLError) and error.args else error


class _Trusting(HTTPAdapter):
    """Connections whose certificates are checked by a context."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._tls, **options)


class _Bearer(AuthBase):
    """As an `auth`, because for a header alone ``~/.netrc`` would win."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
