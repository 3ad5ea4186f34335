"""Calls to runners, as far as they are bounded."""

import asyncio

import pytest
from aiohttp import web

from controller.errors import BadAnswer, NoRoomForAnswer, NotSent
from controller.runner_answers import MAX_ANSWER_BYTES
from controller.runner_client import Item, RunnerClient, _Bodies

MIB = 1024 * 1024


@pytest.fixture
def ask(make_runner):
    """Several answers of so many megabytes at once; what became of each call."""

    async def call(sizes, *, slowly=()):
        held, stalled = asyncio.Event(), asyncio.Event()

        async def answer(request):
            items = await request.json()
            n = int(items[0]["id"])
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b'[{"id":"%d","attempt":1,"state":"succeeded","result":"' % n)
            for _ in range(sizes[n]):
                await response.write(b"x" * MIB)
            if n in slowly:
                stalled.set()
                await held.wait()
            await response.write(b'"}]')
            return response

        runner = make_runner()
        runner._batch = answer
        await runner.start()
        try:
            async with RunnerClient() as client:

                async def one(n):
                    items = [Item(str(n), 1, payload=b"{}")]
                    return await client.batch(runner.view.host, "echo", items, wait_seconds=1, result_bytes=16 * MIB)

                slow = [asyncio.create_task(one(n)) for n in slowly]
                if slow:
                    await stalled.wait()
                done = await asyncio.gather(
                    *(one(n) for n in range(len(sizes)) if n not in slowly), return_exceptions=True
                )
                held.set()
                return done, await asyncio.gather(*slow, return_exceptions=True)
        finally:
            await runner.kill()

    return call


def test_answers_that_are_too_large_together_lose_the_largest_alone(ask, go, monkeypatch):
    monkeypatch.setattr("controller.runner_client.MAX_BODIES_BYTES", 12 * MIB)
    done, (slow,) = go(ask([11, *[4] * 5], slowly=[0]))
    assert [len(each.entries) for each in done if not isinstance(each, Exception)]
    assert isinstance(slow, NoRoomForAnswer)


def test_what_was_received_makes_room_again(ask, go, monkeypatch):
    monkeypatch.setattr("controller.runner_client.MAX_BODIES_BYTES", 4 * MIB)

    async def one_after_the_other():
        return [(await ask([3]))[0][0] for _ in range(4)]

    assert all(answer.entries for answer in go(one_after_the_other()))


def test_answer_above_all_together_is_dropped(ask, go, monkeypatch):
    monkeypatch.setattr("controller.runner_client.MAX_BODIES_BYTES", 4 * MIB)
    ((error,), _) = go(ask([6]))
    assert isinstance(error, NoRoomForAnswer)
    assert "dropped" in str(error)


def test_answer_above_its_own_bound_is_refused(ask, go):
    assert MAX_ANSWER_BYTES > 17 * MIB
    ((error,), _) = go(ask([18]))
    assert isinstance(error, BadAnswer)
    assert error.would_repeat


def test_answer_that_cannot_be_asked_for_again_is_dropped_last(monkeypatch):
    monkeypatch.setattr("controller.runner_client.MAX_BODIES_BYTES", 10)
    bodies = _Bodies()
    with bodies.receive(is_kept=True) as plain:
        bodies.add(plain, b"x" * 8)
        with bodies.receive() as full, pytest.raises(NoRoomForAnswer):
            bodies.add(full, b"x" * 3)
        assert plain.whole() == b"x" * 8
        with pytest.raises(NoRoomForAnswer):
            bodies.add(plain, b"x" * 3)


@pytest.mark.parametrize("host", ["http://a..b:80", "http://.a", f"http://{'a' * 64}:80", "http://x:99999", "ftp://x"])
def test_host_that_is_no_address_was_sent_nothing(go, host):
    async def scenario():
        async with RunnerClient() as client:
            with pytest.raises(NotSent):
                await client.batch(host, "echo", [Item("t1", 1)], wait_seconds=0, result_bytes=MIB)
            with pytest.raises(NotSent):
                await client.run(host, "echo", Item("t1", 1), timeout_seconds=1, result_bytes=MIB)
            with pytest.raises(NotSent):
                await client.cancel(host, "t1")

    go(scenario())
