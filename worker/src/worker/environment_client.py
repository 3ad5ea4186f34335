"""A client for a running environment: the HTTP interfaces of its gateway and its discovery."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ValidationError

from producer.gateway.algorithm_views import Status
from runnerlib.contract import Catalogue, TaskView
from worker.environment_secrets import gateway_token, service_token
from worker.errors import NotRunning, TakeOverRefused, WorkerError
from worker.processes import parse_reasons

#: How often progress is shown.
_WAIT_SECONDS = 0.5
#: Dead letters are counted by listing them: at most so many pages of so many.
_DEAD_PAGES, _DEAD_PAGE = 3, 200
_DISCOVERY_TIMEOUT = aiohttp.ClientTimeout(total=5)
#: A process that was killed stays listed until its lease is over; until then it is asked about this often.
_GIVE_UP_SECONDS, _ASK_AGAIN_SECONDS = 60.0, 2.0
#: What can go wrong while discovery is asked, odd answers included.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError)
M = TypeVar("M", bound=BaseModel)


class RequestFailed(WorkerError):
    """The environment answered with a problem; the message is its own."""


class EnvironmentClient:
    """``async with EnvironmentClient(gateway, discovery, data) as client``. Raises NotRunning if nothing answers.

    `data`: the environment's data folder, for its tokens.
    """

    def __init__(self, gateway: str, discovery: str, data: Path) -> None:
        self._gateway = gateway
        self._discovery = discovery
        #: each for the one that it belongs to: runners must not get either
        self._tokens = {f"{gateway}/": gateway_token(data), f"{discovery}/": service_token(data)}

    async def __aenter__(self) -> "EnvironmentClient":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30, sock_connect=5))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def catalogue(self) -> Catalogue:
        """Everything that discovery knows, schemas included."""
        return _read(Catalogue, await self._request("GET", f"{self._discovery}/catalogue"))

    async def status(self) -> Status:
        """Runners and counts of tasks, as the gateway knows them."""
        return _read(Status, await self._request("GET", f"{self._gateway}/status"))

    async def open_dead_letters(self) -> tuple[int, bool]:
        """How many there are, as far as they are counted; and whether there are more."""
        count, cursor = 0, None
        for _ in range(_DEAD_PAGES):
            more = f"&cursor={quote(cursor, safe='')}" if cursor else ""
            page = await self._request("GET", f"{self._gateway}/dead?limit={_DEAD_PAGE}{more}")
            count, cursor = count + len(page["dead_letters"]), page["next"]
            if cursor is None:
                return count, False
        return count, True

    async def reasons(self, runner: str) -> dict[str, str]:
        """Why a runner is not ready, part by part; empty if it is, or does not answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(f"{runner}/healthz/ready") as answer:
                return parse_reasons(await answer.text())
        return {}

    async def submit(self, algorithm: str, payload: Any) -> str:
        """Queues one task; returns its id once it is durable."""
        answer = await self._request("POST", f"{self._gateway}/tasks", {"algorithm": algorithm, "payload": payload})
        return str(answer["id"])

    async def task(self, id: str) -> TaskView:
        """The task once it has ended, or as it is after half a second."""
        headers = {"Prefer": f"wait={_WAIT_SECONDS}"}
        return _read(TaskView, await self._request("GET", f"{self._gateway}/tasks/{id}", headers=headers))

    async def _request(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        token = next((token for start, token in self._tokens.items() if url.startswith(start)), "")
        headers = {**(headers or {}), **_bearer(token)}
        try:
            async with self._session.request(method, url, json=body, headers=headers) as answer:
                content = await answer.json(content_type=None)
                if answer.status >= 400:
                    raise RequestFailed(f"{method} {url} was refused: {content.get('detail', answer.status)}")
                return content
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _not_running(url, error) from None
        except ValueError:
            raise RequestFailed(f"{method} {url} answered with something that is not JSON") from None


def _read(model: type[M], content: Any) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RequestFailed(f"the environment answered with another shape than expected: {error}") from None


def _not_running(url: str, error: Exception) -> NotRunning:
    reason = str(error) or type(error).__name__
    return NotRunning(f"{url} does not answer ({reason}); start the environment with: worker up")


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where an environment's discovery is, and what it lets us in with."""

    url: str
    token: str = ""


async def is_registered(discovery: Discovery, host: str, boot: str) -> bool:
    """Also False if discovery does not answer. `boot`: which process; an older one may have had this address."""
    with contextlib.suppress(*_NO_ANSWER):
        _, runners = await _ask(discovery, "GET", "/runners")
        return any(runner["host"] == host and boot in ("", runner["boot"]) for runner in runners)
    return False


async def release_algorithms(discovery: Discovery, name: str) -> None:
    """Runner `name` is gone: others may have its algorithms, unless one of that name lives elsewhere."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + _GIVE_UP_SECONDS
    while loop.time() < ends_at:
        with contextlib.suppress(*_NO_ANSWER):
            status, answer = await _ask(discovery, "DELETE", f"/owners?runner={quote(name, safe='')}")
            if status >= 400 or not answer.get("live"):
                return
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


async def take_over(discovery: Discovery, algorithm: str, name: str) -> None:
    """Gives an algorithm to runner `name`. Raises NotRunning; TakeOverRefused with discovery's sentence."""
    try:
        status, answer = await _ask(discovery, "PUT", f"/owners/{quote(algorithm, safe='')}", {"runner": name})
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise _not_running(discovery.url, error) from None
    if status >= 400:
        raise TakeOverRefused(str(answer.get("detail", status)) if isinstance(answer, dict) else str(status))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def _ask(discovery: Discovery, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(timeout=_DISCOVERY_TIMEOUT, headers=_bearer(discovery.token)) as session,
        session.request(method, discovery.url + path, json=body) as answer,
    ):
        return answer.status, None if answer.status == 204 else await answer.json(content_type=None)
