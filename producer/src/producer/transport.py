"""One connection to the gateway: JSON there, JSON back, and every foreign error as one of ours."""

import os
import time
from typing import Any
from urllib.parse import urlsplit

import requests

from producer.errors import GatewayUnreachable, Refused
from runnerlib.contract import StrictJsonError, strict_json

#: The gateway holds a request for at most a minute; this leaves it time to answer.
_READ_SECONDS = 75.0
_CONNECT_SECONDS = 5.0
#: Answers that mean "the same again, a little later".
_AGAIN = (429, 503)
_MOST_PAUSE_SECONDS = 2.0
_OWN_MACHINE = ("127.0.0.1", "::1", "localhost")
JSON = "application/json"
NDJSON = "application/x-ndjson"


#: Parameters behind the question mark; one with several values is given several times.
Query = dict[str, str | list[str]]


class Transport:
    """For one thread. Every call can be repeated safely, so it is, while the gateway restarts or is busy.

    A process that was forked gets connections of its own: on its parent's, each would read the other's answers.
    """

    def __init__(self, url: str, *, patience_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._session = self._new_session()
        self._process = os.getpid()
        self._has_answered = False

    def close(self) -> None:
        if self._process == os.getpid():
            self._session.close()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        # A proxy that the environment names cannot reach this machine's own addresses.
        session.trust_env = urlsplit(self.url).hostname not in _OWN_MACHINE
        return session

    def _own_session(self) -> requests.Session:
        if self._process != os.getpid():
            self._session, self._process = self._new_session(), os.getpid()
        return self._session

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        wait_seconds: float = 0,
        query: Query | None = None,
    ) -> Any:
        """The answer's JSON. `body` is a value, or bytes of NDJSON. Raises GatewayUnreachable and Refused.

        A gateway that never answered is not restarting, so that is told at once.
        """
        headers = _headers(body, wait_seconds)
        data = body if isinstance(body, bytes) else _encode(body)
        end = time.monotonic() + self._patience_seconds
        pause = 0.05
        while True:
            try:
                return self._once(method, path, data, headers, query)
            except Refused as error:
                if error.status not in _AGAIN or time.monotonic() + pause > end:
                    raise
            except _LostConnection as error:
                if (error.nobody_listens and not self._has_answered) or time.monotonic() + pause > end:
                    raise GatewayUnreachable(str(error)) from None
            time.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    def _once(self, method: str, path: str, data: bytes | None, headers: dict[str, str], query: Query | None) -> Any:
        try:
            answer = self._own_session().request(
                method,
                self.url + path,
                params=query,
                data=data,
                headers=headers,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
            )
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise _LostConnection(_advice(self.url), _nobody_listens(error)) from None
        except requests.exceptions.Timeout:
            raise GatewayUnreachable(f"the gateway at {self.url} takes too long to answer; ask again") from None
        except requests.exceptions.RequestException as error:
            raise GatewayUnreachable(f"{self.url} cannot be asked ({error}); check GATEWAY_URL") from None
        return self._read(answer)

    def _read(self, answer: requests.Response) -> Any:
        try:
            content = answer.json()
        except ValueError:
            content = None
        self._has_answered = True
        if answer.status_code in (200, 202) and content is not None:
            return content
        if not isinstance(content, dict) or "code" not in content:
            raise GatewayUnreachable(
                f"what answers at {self.url} is not our gateway (status {answer.status_code}); check GATEWAY_URL"
            )
        raise refusal({"status": answer.status_code, **content})


class _LostConnection(Exception):
    """The connection broke before the answer was there, or was never made (`nobody_listens`)."""

    def __init__(self, message: str, nobody_listens: bool) -> None:
        super().__init__(message)
        self.nobody_listens = nobody_listens


def _nobody_listens(error: requests.exceptions.RequestException) -> bool:
    """urllib3 gives a reason when it gave up connecting; a connection that broke later has none."""
    return getattr(error.args[0] if error.args else None, "reason", None) is not None


def _headers(body: Any, wait_seconds: float) -> dict[str, str]:
    headers = {} if body is None else {"Content-Type": NDJSON if isinstance(body, bytes) else JSON}
    if wait_seconds > 0:
        headers["Prefer"] = f"wait={wait_seconds:.3f}"
    return headers


def _encode(body: Any) -> bytes | None:
    if body is None:
        return None
    try:
        return strict_json.dumps(body)
    except (StrictJsonError, TypeError) as error:
        raise Refused(400, "malformed", f"the payload cannot be sent as JSON: {error}") from None


def refusal(problem: dict[str, Any]) -> Refused:
    """A problem of the gateway as an error."""
    detail = str(problem.get("detail", "the gateway refused it"))
    return Refused(int(problem["status"]), str(problem["code"]), detail, problem.get("errors"))


def _advice(url: str) -> str:
    return f"no gateway answers at {url}; start the environment with `worker up`, or set GATEWAY_URL"
