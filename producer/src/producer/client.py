"""A small synchronous client of the gateway."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
from pydantic import ValidationError

from producer.errors import GatewayUnreachable, Refused
from runnerlib.contract import StrictJsonError, TaskView, is_task_id, new_task_id, strict_json

#: The gateway holds a request for at most a minute; this leaves it time to answer.
_READ_SECONDS = 75.0
_CONNECT_SECONDS = 5.0
#: One wait; short enough to show progress while it lasts.
_SLICE_SECONDS = 1.0
#: Answers that mean "the same again, a little later".
_AGAIN = (429, 503)
_MOST_PAUSE_SECONDS = 2.0
_OWN_MACHINE = ("127.0.0.1", "::1", "localhost")


class GatewayClient:
    """``with GatewayClient("http://127.0.0.1:8000") as client: client.wait(client.submit("upper", {...}).id)``.

    Raises GatewayUnreachable when nobody answers, and Refused with the gateway's own sentence. One client is for one
    thread.
    """

    def __init__(self, url: str, *, patience_seconds: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._session = requests.Session()
        # A proxy that the environment names cannot reach this machine's own addresses.
        self._session.trust_env = urlsplit(self._url).hostname not in _OWN_MACHINE
        self._has_answered = False

    def __enter__(self) -> "GatewayClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def submit(
        self,
        algorithm: str,
        payload: Any,
        *,
        task_id: str | None = None,
        expires_seconds: float | None = None,
        wait_seconds: float = 0,
    ) -> TaskView:
        """Queues a task; returns when it is durable, or with `wait_seconds` when it has ended or after that long.

        The id is chosen here when none is given, so that sending it again after a lost connection makes one task.
        """
        message: dict[str, Any] = {"algorithm": algorithm, "payload": payload, "id": task_id or new_task_id()}
        if expires_seconds is not None:
            message["expires_seconds"] = expires_seconds
        return _task(self._patiently("POST", "/tasks", message, wait_seconds))

    def submit_batch(self, messages: Sequence[dict[str, Any]]) -> list[Refused | None]:
        """Queues up to 1,000 messages, each with its id: a refusal or None for each, in order.

        Sending the same again after an error makes no task twice.
        """
        entries = self._patiently("POST", "/tasks/batch", list(messages), 0)
        if not isinstance(entries, list) or len(entries) != len(messages):
            raise GatewayUnreachable("the gateway answered with something that is not a batch; check GATEWAY_URL")
        return [_refusal(entry["problem"]) if "problem" in entry else None for entry in entries]

    def get(self, task_id: str, *, wait_seconds: float = 0) -> TaskView:
        """The task as it is now, or with `wait_seconds` when it has ended or after that long."""
        return _task(self._patiently("GET", _path(task_id), None, wait_seconds))

    def wait(
        self, task_id: str, timeout_seconds: float, *, on_view: Callable[[TaskView], None] | None = None
    ) -> TaskView:
        """The task when it has ended, or as it is when the time is over. `on_view` sees it about each second."""
        end = time.monotonic() + timeout_seconds
        view = self.get(task_id)
        while not view.state.is_terminal and (left := end - time.monotonic()) > 0:
            if on_view is not None:
                on_view(view)
            view = self.get(task_id, wait_seconds=min(left, _SLICE_SECONDS))
        return view

    def cancel(self, task_id: str) -> TaskView:
        """Cancels a task; the answer tells whether it is cancelled or its runner is being asked. Refused: it ended."""
        return _task(self._patiently("DELETE", _path(task_id), None, 0))

    def algorithms(self) -> list[dict[str, Any]]:
        """What can be asked for, as ``GET /algorithms`` tells it."""
        found: list[dict[str, Any]] = self._patiently("GET", "/algorithms", None, 0)["algorithms"]
        return found

    def _patiently(self, method: str, path: str, body: Any, wait_seconds: float) -> Any:
        """Asks again while the gateway restarts or is busy: every call of this client can be repeated safely.

        A gateway that never answered is not restarting, so that is told at once.
        """
        data = _encode(body)
        end = time.monotonic() + self._patience_seconds
        pause = 0.05
        while True:
            try:
                return self._ask(method, path, data, wait_seconds)
            except Refused as error:
                if error.status not in _AGAIN or time.monotonic() + pause > end:
                    raise
            except _LostConnection as error:
                if (error.nobody_listens and not self._has_answered) or time.monotonic() + pause > end:
                    raise GatewayUnreachable(str(error)) from None
            time.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    def _ask(self, method: str, path: str, data: bytes | None, wait_seconds: float) -> Any:
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if wait_seconds > 0:
            headers["Prefer"] = f"wait={wait_seconds:.3f}"
        try:
            answer = self._session.request(
                method,
                self._url + path,
                data=data,
                headers=headers,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
            )
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise _LostConnection(_advice(self._url), _nobody_listens(error)) from None
        except requests.exceptions.Timeout:
            raise GatewayUnreachable(f"the gateway at {self._url} takes too long to answer; ask again") from None
        except requests.exceptions.RequestException as error:
            raise GatewayUnreachable(f"{self._url} cannot be asked ({error}); check GATEWAY_URL") from None
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
                f"what answers at {self._url} is not our gateway (status {answer.status_code}); check GATEWAY_URL"
            )
        raise _refusal({"status": answer.status_code, **content})


class _LostConnection(Exception):
    """The connection broke before the answer was there, or was never made (`nobody_listens`)."""

    def __init__(self, message: str, nobody_listens: bool) -> None:
        super().__init__(message)
        self.nobody_listens = nobody_listens


def _nobody_listens(error: requests.exceptions.RequestException) -> bool:
    """urllib3 gives a reason when it gave up connecting; a connection that broke later has none."""
    return getattr(error.args[0] if error.args else None, "reason", None) is not None


def _encode(body: Any) -> bytes | None:
    if body is None:
        return None
    try:
        return strict_json.dumps(body)
    except (StrictJsonError, TypeError) as error:
        raise Refused(400, "malformed", f"the payload cannot be sent as JSON: {error}") from None


def _refusal(problem: dict[str, Any]) -> Refused:
    detail = str(problem.get("detail", "the gateway refused it"))
    return Refused(int(problem["status"]), str(problem["code"]), detail, problem.get("errors"))


def _advice(url: str) -> str:
    return f"no gateway answers at {url}; start the environment with `worker up`, or set GATEWAY_URL"


def _path(task_id: str) -> str:
    if not is_task_id(task_id) or task_id in (".", ".."):
        raise Refused(422, "invalid_id", "a task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return f"/tasks/{task_id}"


def _task(content: Any) -> TaskView:
    try:
        return TaskView.model_validate(content)
    except ValidationError:
        raise GatewayUnreachable("the gateway answered with something that is not a task; check GATEWAY_URL") from None
