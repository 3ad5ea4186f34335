"""The same client for asyncio: ``async with AsyncTaskClient("http://127.0.0.1:8000") as client``."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

from producer import calls, steps
from producer.dead_filter import DeadLetterFilter
from producer.errors import CLOSED, GatewayUnreachable, Refused
from producer.models import DeadLettersDone, DeadLetterView, TaskState, TaskSummaryView, TaskView
from producer.outgoing import Given, outgoing
from producer.task_client import broker_sender, no_gateway, nowhere
from producer.transport import (
    CONNECT_SECONDS,
    READ_SECONDS,
    LostConnection,
    cannot_be_asked,
    is_own_machine,
    may_pass,
    nobody_answers,
    pauses,
    read_answer,
)

T = TypeVar("T")
#: At once; below what a process may have open by default.
_MOST_CONNECTIONS = 500
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)


class AsyncTaskClient:
    """``async with AsyncTaskClient(URL) as client: await client.result(await client.submit("upper", {"text": "a"}))``.

    Has the methods of TaskClient, which say more. One client may be used by any number of coroutines, on any number of
    event loops, and after a fork by each of the processes; `close` ends the connections of the loop that it runs on.
    """

    def __init__(self, gateway_url: str = "", *, queue_url: str = "", patience_seconds: float = 10.0) -> None:
        if not gateway_url and not queue_url:
            raise ValueError(nowhere(type(self).__name__))
        self._connections = _Connections(gateway_url, patience_seconds)
        self._broker = broker_sender(queue_url, patience_seconds) if queue_url else None

    async def __aenter__(self) -> "AsyncTaskClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Idempotent. Ends the broker's thread, if there is one."""
        await self._connections.close()
        if self._broker is not None:
            await asyncio.to_thread(self._broker.close)

    async def submit(
        self, algorithm: str, payload: Any, *, task_id: str | None = None, expires_seconds: float | None = None
    ) -> str:
        """Queues a task and returns its id, once the task is durable."""
        task = outgoing((algorithm, payload), task_id, expires_seconds)
        await self._do(calls.send(task, to_broker=self._broker is not None))
        return task.id

    async def submit_many(self, tasks: Iterable[Given], *, expires_seconds: float | None = None) -> list[str]:
        """Queues tasks in parts and returns their ids, in order. Raises SomeRefused and NotAllSent."""
        return await self._do(calls.submit_many(tasks, expires_seconds, to_broker=self._broker is not None))

    async def get(self, task_id: str) -> TaskView:
        """The task as it is now."""
        return await self._do(calls.get(task_id))

    async def wait(self, task_id: str, timeout_seconds: float = 60.0) -> TaskView:
        """The task when it has ended, however it ended. Raises NotFinished, a TimeoutError, when the time is over."""
        return await self._do(calls.wait(task_id, timeout_seconds, unseen_too=self._broker is not None))

    async def wait_many(self, task_ids: Sequence[str], timeout_seconds: float = 60.0) -> list[TaskView]:
        """All of them when all have ended, in order. Raises NotFinished for the first that has not in time."""
        return await self._do(calls.wait_many(task_ids, timeout_seconds, unseen_too=self._broker is not None))

    async def result(self, task_id: str, timeout_seconds: float = 60.0) -> Any:
        """What the task's function returned. Raises TaskFailed when it ended otherwise, NotFinished as `wait` does."""
        return await self._do(calls.result(task_id, timeout_seconds, unseen_too=self._broker is not None))

    async def cancel(self, task_id: str) -> TaskView:
        """Cancels a task: it is `cancelled` now, or its runner is being asked. Refused: it had ended."""
        return await self._do(calls.cancel(task_id))

    async def tasks(
        self, *, algorithm: str | None = None, states: Iterable[TaskState] = (), limit: int = 100
    ) -> list[TaskSummaryView]:
        """The newest tasks first, without their results."""
        return await self._do(calls.tasks(calls.tasks_query(algorithm, states), limit))

    async def dead_letters(self, wanted: DeadLetterFilter | None = None, *, limit: int = 100) -> list[DeadLetterView]:
        """Failed tasks that wait for a decision, the newest first."""
        return await self._do(calls.dead_letters(wanted, limit))

    async def replay(self, dead_id: int) -> TaskView:
        """Puts a dead letter's task back into the queue, under its own id. Refused: it cannot be, or was already."""
        return await self._do(calls.replay(dead_id))

    async def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """The same for these, or for all open ones that are wanted: how many, and which were skipped and why."""
        return await self._do(calls.settle_many(calls.REPLAY_MANY, wanted))

    async def discard(self, dead_id: int) -> DeadLetterView:
        """Notes that nothing more shall become of a dead letter. Refused: it was replayed or discarded already."""
        return await self._do(calls.discard(dead_id))

    async def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """The same for these, or for all open ones that are wanted: how many, and which were skipped and why."""
        return await self._do(calls.settle_many(calls.DISCARD_MANY, wanted))

    async def _do(self, call: steps.Call[T]) -> T:
        return await steps.perform_async(call, self._step)

    async def _step(self, step: steps.Step) -> Any:
        match step:
            case steps.Ask():
                return await self._connections.ask(step)
            case steps.Publish():
                assert self._broker is not None, "only with a broker"
                return await asyncio.to_thread(self._broker.send, step.tasks)
            case steps.Pause():
                await asyncio.sleep(step.seconds)
        return None


class _Connections:
    """Connections to the gateway, for each event loop of each process its own: no other can use them."""

    def __init__(self, url: str, patience_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._sessions: dict[int, dict[asyncio.AbstractEventLoop, aiohttp.ClientSession]] = {}
        self._has_answered = False
        self._closed = False

    async def ask(self, ask: steps.Ask) -> Any:
        """As `producer.transport.Transport.ask`."""
        if not self._url:
            raise no_gateway("AsyncTaskClient")
        again = pauses(self._patience_seconds)
        while True:
            if self._closed:
                raise GatewayUnreachable(CLOSED)
            try:
                return await self._once(ask)
            except Refused as error:
                if not may_pass(error) or (pause := next(again, None)) is None:
                    raise
            except LostConnection as error:
                first = error.nobody_listens and not self._has_answered
                if first or (pause := next(again, None)) is None:
                    raise GatewayUnreachable(str(error)) from None
            await asyncio.sleep(pause)

    async def _once(self, ask: steps.Ask) -> Any:
        try:
            async with self._session().request(
                ask.method,
                self._url + ask.path,
                params=ask.query,
                data=ask.body,
                headers=ask.headers,
                allow_redirects=False,
            ) as answer:
                status, body = answer.status, await answer.read()
        except aiohttp.ConnectionTimeoutError:
            raise LostConnection(nobody_answers(self._url, ""), True) from None
        except TimeoutError:
            raise GatewayUnreachable(f"the gateway at {self._url} takes too long to answer; ask again") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
            raise GatewayUnreachable(cannot_be_asked(self._url, _why(error), "")) from None
        except aiohttp.ClientError as error:
            is_first = isinstance(error, aiohttp.ClientConnectorError)
            raise LostConnection(nobody_answers(self._url, ""), is_first) from None
        content = read_answer(self._url, status, body)
        self._has_answered = True
        return content

    def _session(self) -> aiohttp.ClientSession:
        sessions = self._sessions.setdefault(os.getpid(), {})
        _let_go_of_ended(sessions)
        loop = asyncio.get_running_loop()
        session = sessions.get(loop)
        if session is None or session.closed:
            session = sessions[loop] = aiohttp.ClientSession(
                connector=_Connector(limit=_MOST_CONNECTIONS), timeout=_TIMEOUT, trust_env=not is_own_machine(self._url)
            )
        return session

    async def close(self) -> None:
        self._closed = True
        session = self._sessions.get(os.getpid(), {}).pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


def _let_go_of_ended(sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession]) -> None:
    """A session holds its loop, so no weak reference would tell that the loop is gone. Other threads may do the same.

    It cannot be closed without its loop: its connections end when nothing holds them any more.
    """
    for loop in [each for each in list(sessions) if each.is_closed()]:
        session = sessions.pop(loop, None)
        if session is not None:
            session.detach()


def _why(error: Exception) -> object:
    """What is wrong with an address: an InvalidURL itself only repeats the address."""
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return error.__cause__ or "it does not begin with http:// and a host"
    return error


class _Connector(aiohttp.TCPConnector):
    """One that a forked process does not close at its end: that would stop its parent's loop from hearing of them.

    Nor is one closed whose loop has ended: that would need the loop.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit)
        self._process = os.getpid()

    def __del__(self, *more: Any) -> None:
        if self._process == os.getpid() and not self._loop.is_closed():
            super().__del__(*more)
