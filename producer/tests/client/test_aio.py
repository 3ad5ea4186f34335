"""The asyncio client: the same calls as TaskClient's, on any loop, and after a fork."""

import asyncio
import gc
import inspect
import os
import signal
import socket
from typing import Any

import pytest

from producer import AsyncTaskClient, DeadLetterFilter, TaskClient
from producer.errors import (
    GatewayUnreachable,
    NoGateway,
    NotAllSent,
    NotFinished,
    Refused,
    SomeRefused,
    TaskFailed,
)
from producer.models import TaskState

#: Queues and stores differ in nothing that a client sees.
pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)


def test_it_has_the_methods_of_the_blocking_client_with_their_parameters(gateway: Any) -> None:
    def methods(kind: type) -> dict[str, Any]:
        named = [(name, member) for name, member in inspect.getmembers(kind) if not name.startswith("_")]
        return {name: str(inspect.signature(member)) for name, member in named}

    assert methods(AsyncTaskClient) == methods(TaskClient)


def test_tasks_are_sent_waited_for_and_listed(gateway: Any) -> None:
    async def scenario() -> None:
        async with AsyncTaskClient(gateway.url) as client:
            ids = await client.submit_many(("anything", n) for n in range(150))
            assert (await client.get(ids[0])).state is TaskState.QUEUED
            with pytest.raises(NotFinished, match="is queued after"):
                await client.wait(ids[0], 0.2)
            done = asyncio.gather(client.wait_many(ids, 30), *(client.result(task_id, 30) for task_id in ids[:40]))
            for number in range(150):
                await asyncio.to_thread(gateway.succeed, "anything", b"%d" % number)
            views, *results = await done
            assert [view.result for view in views] == [*range(150)]
            assert results == [*range(40)]
            assert len(await client.tasks(states=[TaskState.SUCCEEDED], limit=120)) == 120

    asyncio.run(scenario())


def test_what_is_wrong_is_told_as_by_the_blocking_client(gateway: Any) -> None:
    async def scenario() -> None:
        async with AsyncTaskClient(gateway.url) as client:
            with pytest.raises(Refused, match="text is missing"):
                await client.submit("upper", {})
            with pytest.raises(Refused, match="cannot be sent as JSON"):
                await client.submit("upper", float("nan"))
            with pytest.raises(SomeRefused) as some:
                await client.submit_many([("upper", {"text": "a"}), ("upper", {})])
            assert [*some.value.refused] == [1]
            await asyncio.to_thread(gateway.fail, "upper", "too small")
            with pytest.raises(TaskFailed, match=r"failed \(handler_error\): too small"):
                await client.result(some.value.ids[0], 10)
            [letter] = await client.dead_letters(DeadLetterFilter(algorithm="upper"))
            assert (await client.replay(letter.dead_id)).state is TaskState.QUEUED
            assert (await client.cancel(some.value.ids[0])).state is TaskState.CANCELLED
            assert (await client.replay_many([letter.dead_id])).skipped[0].code == "already_replayed"
            with pytest.raises(Refused):
                await client.discard(letter.dead_id)
            assert (await client.discard_many(DeadLetterFilter())).done == 0
        with pytest.raises(GatewayUnreachable, match="was closed"):
            await client.submit("upper", {"text": "a"})
        async with AsyncTaskClient("http://127.0.0.1:9", patience_seconds=60) as nobody:
            with pytest.raises(GatewayUnreachable, match="worker up"):
                await nobody.tasks()
            with pytest.raises(NotAllSent):
                await nobody.submit_many([("upper", 1)])
        async with AsyncTaskClient(queue_url="amqp://guest:guest@127.0.0.1:9/", patience_seconds=0.1) as past:
            with pytest.raises(NoGateway):
                await past.get("a")
        with pytest.raises(ValueError, match=r"AsyncTaskClient\('http"):
            AsyncTaskClient()

    asyncio.run(scenario())


def test_one_client_serves_one_loop_after_the_other(gateway: Any) -> None:
    client = AsyncTaskClient(gateway.url)
    for number in range(3):
        task_id = asyncio.run(client.submit("anything", number))
        gateway.succeed("anything", b"%d" % number)
        assert asyncio.run(client.result(task_id, 10)) == number
    asyncio.run(client.close())


def test_client_on_many_loops_keeps_the_connections_of_none_that_has_ended(gateway: Any) -> None:
    client = AsyncTaskClient(gateway.url)
    for _ in range(20):
        asyncio.run(client.tasks())
    assert _sockets_to(gateway) == 1  # a loop is known to have ended when the next one asks
    asyncio.run(client.close())


def _sockets_to(gateway: Any) -> int:
    port = int(gateway.url.rsplit(":", 1)[1])
    gc.collect()
    sockets = [each for each in gc.get_objects() if isinstance(each, socket.socket) and each.fileno() != -1]
    return sum(_peer_of(each)[1:2] == (port,) for each in sockets)


def _peer_of(each: socket.socket) -> tuple[Any, ...]:
    try:
        return tuple(each.getpeername())
    except OSError:  # it listens, or its other end has gone
        return ()


def test_forked_processes_neither_share_its_connections_nor_end_those_of_their_parent(gateway: Any) -> None:
    async def scenario() -> None:
        client = AsyncTaskClient(gateway.url)
        for number in range(8):
            await client.submit("anything", number, task_id=f"t{number}")
            gateway_done = asyncio.to_thread(gateway.succeed, "anything", b"%d" % number)
            await gateway_done
        children = [_forked(client, number) for number in range(8)]
        for number in range(40):
            assert await client.result(f"t{number % 8}", 10) == number % 8
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        assert await client.result("t0", 10) == 0
        await client.close()

    asyncio.run(scenario())


def _forked(client: AsyncTaskClient, number: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(20)
    try:
        asyncio._set_running_loop(None)  # before Python 3.12 a child believes that its parent's loop runs in it

        async def ask() -> bool:
            return all([await client.result(f"t{number}", 10) == number for _ in range(20)])

        code = 0 if asyncio.run(ask()) else 2
        client.__dict__.clear()
        gc.collect()
    finally:
        os._exit(code)
