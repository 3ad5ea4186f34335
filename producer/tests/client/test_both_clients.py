"""What goes wrong on the way to the gateway is told alike by both clients."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from producer import AsyncTaskClient, GatewayClient, TaskClient
from producer.client import aio, transport
from producer.client.broker_sender import BrokerSender
from producer.client.steps import task_message
from producer.errors import BrokerUnreachable, GatewayUnreachable, NoGateway, Refused
from taskqueue.errors import StoreUnavailable

QUEUE = "amqp://guest:guest@127.0.0.1:9/"

Ask = Callable[..., Any]


def ask_blocking(**where: Any) -> Any:
    with TaskClient(**{"patience_seconds": 0} | where) as client:
        return client.tasks()


def ask_async(**where: Any) -> Any:
    async def scenario() -> Any:
        async with AsyncTaskClient(**{"patience_seconds": 0} | where) as client:
            return await client.tasks()

    return asyncio.run(scenario())


both = pytest.mark.parametrize("ask", [ask_blocking, ask_async])


@pytest.fixture
def deaf_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Whoever connects there waits: the one place in the line is taken."""
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(aio, "_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_connect=0.2))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.create_connection(server.getsockname()):
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@both
@pytest.mark.parametrize("url", ["http://[::1", "http://a..b", "http://h:99999999", "no_scheme", "ftp://a"])
def test_address_that_is_none_is_told_in_a_sentence(ask: Ask, url: str) -> None:
    with pytest.raises(GatewayUnreachable, match=r"cannot be asked: .*; check the gateway's address") as error:
        ask(gateway_url=url)
    why = str(error.value).split("cannot be asked: ")[1].removesuffix("; check the gateway's address")
    assert why != f"{url}/tasks"


@both
def test_gateway_that_takes_no_connection_in_time_is_one_that_nobody_answers_for(ask: Ask, deaf_address: str) -> None:
    with pytest.raises(GatewayUnreachable, match=f"no gateway answers at {deaf_address}"):
        ask(gateway_url=deaf_address)


@pytest.mark.parametrize(("ask", "name"), [(ask_blocking, "TaskClient"), (ask_async, "AsyncTaskClient")])
def test_client_without_a_gateway_names_itself(ask: Ask, name: str) -> None:
    with pytest.raises(NoGateway, match=rf": {name}\('http"):
        ask(queue_url=QUEUE)
    with pytest.raises(ValueError, match=rf": {name}\('http"):
        ask()


@both
@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
def test_gateway_is_asked_again_as_late_as_it_says(ask: Ask, gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_at: list[float] = []

    async def is_away(*_filter: Any, **_more: Any) -> Any:
        asked_at.append(time.monotonic())
        raise StoreUnavailable("test")

    monkeypatch.setattr(gateway.store, "list_tasks", is_away)
    with pytest.raises(Refused) as refused:
        ask(gateway_url=gateway.url, patience_seconds=1.5)
    assert refused.value.status == 503
    assert len(asked_at) >= 2
    assert all(later - earlier >= 1 for earlier, later in pairwise(asked_at))


def test_closed_client_and_closed_sender_say_the_same() -> None:
    client, sender = TaskClient("http://127.0.0.1:9"), BrokerSender(QUEUE, patience_seconds=0)
    client.close()
    sender.close()
    with pytest.raises(GatewayUnreachable) as of_client:
        client.tasks()
    with GatewayClient("http://127.0.0.1:9") as ended:
        pass
    with pytest.raises(GatewayUnreachable, match=str(of_client.value)):
        ended.algorithms()
    with pytest.raises(BrokerUnreachable) as of_sender:
        sender.send([task_message(("upper", {}))])
    assert str(of_client.value) == str(of_sender.value)
