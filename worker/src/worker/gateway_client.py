"""The worker's own view of a running environment: the gateway's and discovery's HTTP interface."""

import contextlib
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ValidationError

from producer.gateway.algorithm_views import Status
from runnerlib.contract import Catalogue, TaskView
from worker.errors import NotRunning, WorkerError
from worker.processes import reasons_in

#: How often progress is shown.
_WAIT_SECONDS = 0.5
#: Dead letters are counted by listing them: so many pages of so many at most.
_DEAD_PAGES, _DEAD_PAGE = 3, 200
M = TypeVar("M", bound=BaseModel)


class RequestFailed(WorkerError):
    """The environment answered with a problem; the message is its own."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task on its way; `at` is a monotonic time."""

    id: str
    at: float


class GatewayClient:
    """``async with GatewayClient(gateway_url, discovery_url) as client``. Raises NotRunning when nobody answers."""

    def __init__(self, gateway: str, discovery: str) -> None:
        self._gateway = gateway
        self._discovery = discovery
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "GatewayClient":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30, sock_connect=5))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def catalogue(self) -> Catalogue:
        """All that discovery knows, schemas included."""
        return _read(Catalogue, await self._ask("GET", f"{self._discovery}/catalogue"))

    async def status(self) -> Status:
        """Runners and counts of tasks, as the gateway knows them."""
        return _read(Status, await self._ask("GET", f"{self._gateway}/status"))

    async def open_dead_letters(self) -> tuple[int, bool]:
        """How many there are, as far as they are counted; and whether there are more."""
        count, cursor = 0, None
        for _ in range(_DEAD_PAGES):
            more = f"&cursor={quote(cursor, safe='')}" if cursor else ""
            page = await self._ask("GET", f"{self._gateway}/dead?limit={_DEAD_PAGE}{more}")
            count, cursor = count + len(page["dead_letters"]), page["next"]
            if cursor is None:
                return count, False
        return count, True

    async def reasons(self, runner: str) -> dict[str, str]:
        """Why a runner is not ready, part by part; empty when it is, or does not answer."""
        assert self._session is not None, "enter the client first"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(f"{runner}/healthz/ready") as answer:
                return reasons_in(await answer.text())
        return {}

    async def submit(self, algorithm: str, payload: Any) -> Submitted:
        """Queues one task; returns when it is durable."""
        at = time.monotonic()
        answer = await self._ask("POST", f"{self._gateway}/tasks", {"algorithm": algorithm, "payload": payload})
        return Submitted(answer["id"], at)

    async def look(self, task_id: str) -> TaskView:
        """The task as it is when it has ended, else after half a second."""
        headers = {"Prefer": f"wait={_WAIT_SECONDS}"}
        return _read(TaskView, await self._ask("GET", f"{self._gateway}/tasks/{task_id}", headers=headers))

    async def _ask(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        assert self._session is not None, "enter the client first"
        try:
            async with self._session.request(method, url, json=body, headers=headers) as answer:
                content = await answer.json(content_type=None)
                if answer.status >= 400:
                    raise RequestFailed(f"{method} {url} was refused: {content.get('detail', answer.status)}")
                return content
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise NotRunning(f"{url} does not answer ({reason}); start the environment with: worker up") from None
        except ValueError:
            raise RequestFailed(f"{method} {url} answered with something that is not JSON") from None


def _read(model: type[M], content: Any) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RequestFailed(f"the environment answered with another shape than expected: {error}") from None
