"""The client for asyncio: ``async with AsyncTaskClient("http://127.0.0.1:8000") as client``."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from producer.client import calls, steps
from producer.client.client import broker_sender, no_address, no_gateway
from producer.client.steps import TaskInput, retry_pauses
from producer.client.transport import (
    CONNECT_SECONDS,
    READ_SECONDS,
    LostConnection,
    bad_address,
    is_own_machine,
    nothing_answers,
    pause_before_retry,
    read_answer,
    too_slow,
)
from producer.errors import CLOSED, GatewayUnreachable, Refused
from producer.models import DeadLetterFilter, DeadLettersDone, DeadLetterView, TaskState, TaskSummaryView, TaskView

T = TypeVar("T")
#: At once; below what a process may have open by default.
_MAX_CONNECTIONS = 500
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)


class AsyncTaskClient:
    """``async with AsyncTaskClient(URL) as client: await client.result(await client.submit("upper", {"text": "a"}))``.

    Has the methods of TaskClient, which document them. One client may be used by any number of coroutines, on any
    number of event loops, and after a fork by each of the processes; `close` ends the connections of its own loop.
    """

    def __init__(self, gateway_url: str = "", *, queue_url: str = "", patience_seconds: float = 10.0) -> None:
        if not gateway_url and not queue_url:
            raise ValueError(no_address(type(self).__name__))
        self._pool = _SessionPool(gateway_url, patience_seconds)
        self._broker = broker_sender(queue_url, patience_seconds) if queue_url else None
        self._by_broker = self._broker is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections, and ends the broker's thread if there is one. Idempotent."""
        await self._pool.close()
        if self._broker is not None:
            await asyncio.to_thread(self._broker.close)

    async def submit(
        self, algorithm: str, payload: Any, *, task_id: str | None = None, expires_seconds: float | None = None
    ) -> str:
        """Queues a task and returns its id, once the task is durable."""
        return await self._outcome(
            calls.send((algorithm, payload), task_id, expires_seconds, by_broker=self._by_broker)
        )

    async def submit_many(self, tasks: Iterable[TaskInput], *, expires_seconds: float | None = None) -> list[str]:
        """Queues tasks in parts and returns their ids, in order. Raises SomeRefused and NotAllSent."""
        return await self._outcome(calls.submit_many(tasks, expires_seconds, by_broker=self._by_broker))

    async def get(self, task_id: str) -> TaskView:
        """The task as it is now."""
        return await self._outcome(calls.get(task_id))

    async def wait(self, task_id: str, timeout_seconds: float = 60.0) -> TaskView:
        """The task when it has ended, whatever its state. Raises NotFinished, a TimeoutError, when the time is over."""
        return await self._outcome(calls.wait(task_id, timeout_seconds, by_broker=self._by_broker))

    async def wait_many(self, task_ids: Sequence[str], timeout_seconds: float = 60.0) -> list[TaskView]:
        """All of them when all have ended, in order. Raises NotFinished for the first that has not in time."""
        return await self._outcome(calls.wait_many(task_ids, timeout_seconds, by_broker=self._by_broker))

    async def result(self, task_id: str, timeout_seconds: float = 60.0) -> Any:
        """What the task's function returned. Raises TaskFailed when it ended otherwise, NotFinished as `wait` does."""
        return await self._outcome(calls.result(task_id, timeout_seconds, by_broker=self._by_broker))

    async def cancel(self, task_id: str) -> TaskView:
        """Cancels a task: it is `cancelled` now, or its runner is being asked. Raises Refused if it had ended."""
        return await self._outcome(calls.cancel(task_id))

    async def tasks(
        self, *, algorithm: str | None = None, states: Iterable[TaskState] = (), limit: int = 100
    ) -> list[TaskSummaryView]:
        """The newest tasks first, without their results."""
        return await self._outcome(calls.tasks(algorithm, states, limit))

    async def dead_letters(self, wanted: DeadLetterFilter | None = None, *, limit: int = 100) -> list[DeadLetterView]:
        """Failed tasks that wait for a decision, the newest first."""
        return await self._outcome(calls.dead_letters(wanted, limit))

    async def replay(self, dead_id: int) -> TaskView:
        """Puts a dead letter's task back into the queue, under its own id."""
        return await self._outcome(calls.replay(dead_id))

    async def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """Replays these dead letters, or all open ones that match: how many, and which were skipped and why."""
        return await self._outcome(calls.settle_many(calls.REPLAY_MANY, wanted))

    async def discard(self, dead_id: int) -> DeadLetterView:
        """Closes a dead letter without running its task again. Raises Refused if it was replayed or discarded."""
        return await self._outcome(calls.discard(dead_id))

    async def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """Discards these dead letters, or all open ones that match: how many, and which were skipped and why."""
        return await self._outcome(calls.settle_many(calls.DISCARD_MANY, wanted))

    async def _outcome(self, call: steps.Call[T]) -> T:
        return await steps.outcome_of_async(call, self._perform)

    async def _perform(self, step: steps.Step) -> Any:
        match step:
            case steps.Request():
                return await self._pool.send(step)
            case steps.Publish():
                assert self._broker is not None, "only with a broker"
                return await asyncio.to_thread(self._broker.send, step.tasks)
            case steps.Sleep():
                await asyncio.sleep(step.seconds)
        return None


class _SessionPool:
    """A session for each event loop of each process: no other loop can use its connections."""

    def __init__(self, url: str, patience_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._sessions: dict[int, dict[asyncio.AbstractEventLoop, aiohttp.ClientSession]] = {}
        self._has_answered = False
        self._closed = False

    async def send(self, request: steps.Request) -> Any:
        """As `producer.client.transport.Transport.send`."""
        if not self._url:
            raise no_gateway("AsyncTaskClient")
        pauses = retry_pauses(self._patience_seconds)
        while True:
            if self._closed:
                raise GatewayUnreachable(CLOSED)
            try:
                return await self._send_once(request)
            except (Refused, LostConnection) as error:
                pause = pause_before_retry(error, pauses, has_answered=self._has_answered)
            await asyncio.sleep(pause)

    async def _send_once(self, request: steps.Request) -> Any:
        try:
            async with self._session().request(
                request.method,
                self._url + request.path,
                params=request.query,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
            ) as answer:
                status, body = answer.status, await answer.read()
        except aiohttp.ConnectionTimeoutError:
            raise LostConnection(nothing_answers(self._url), has_connected=False) from None
        except TimeoutError:
            raise GatewayUnreachable(too_slow(self._url)) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            # An InvalidURL itself only repeats the address.
            why = error.__cause__ or "it does not begin with http:// and a host"
            raise GatewayUnreachable(bad_address(self._url, why)) from None
        except ValueError as error:
            raise GatewayUnreachable(bad_address(self._url, error)) from None
        except aiohttp.ClientError as error:
            has_connected = not isinstance(error, aiohttp.ClientConnectorError)
            raise LostConnection(nothing_answers(self._url), has_connected=has_connected) from None
        content = read_answer(self._url, status, body)
        self._has_answered = True
        return content

    def _session(self) -> aiohttp.ClientSession:
        sessions = self._sessions.setdefault(os.getpid(), {})
        _drop_ended(sessions)
        loop = asyncio.get_running_loop()
        session = sessions.get(loop)
        if session is None or session.closed:
            session = sessions[loop] = aiohttp.ClientSession(
                connector=_Connector(limit=_MAX_CONNECTIONS), timeout=_TIMEOUT, trust_env=not is_own_machine(self._url)
            )
        return session

    async def close(self) -> None:
        self._closed = True
        session = self._sessions.get(os.getpid(), {}).pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


def _drop_ended(sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession]) -> None:
    """Drops sessions of loops that have ended; other threads may do the same at the same time.

    A session refers to its loop, so a weak reference would not do. It cannot be closed without its loop: its
    connections end when nothing refers to them any more.
    """
    for loop in [each for each in list(sessions) if each.is_closed()]:
        session = sessions.pop(loop, None)
        if session is not None:
            session.detach()


class _Connector(aiohttp.TCPConnector):
    """Is not closed at the end of a forked process: that would make its parent's loop deaf to the connections.

    Nor when its loop has ended: closing needs the loop.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit)
        self._process = os.getpid()

    def __del__(self, *more: Any) -> None:
        if self._process == os.getpid() and not self._loop.is_closed():
            super().__del__(*more)
