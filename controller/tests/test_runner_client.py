"""Calls to runners, as far as they are bounded."""

import asyncio

import pytest
from aiohttp import web
from certificates import Authority

from controller.errors import BadAnswer, NoRoomForAnswer, NotSent
from controller.runner_answers import MAX_ANSWER_BYTES
from controller.runner_client import Item, RunnerClient, _Bodies
from runnerlib.contract import RunnerView
from runnerlib.contract.identity import RunnerKeys, run_token_of
from runnerlib.service.http_server import HttpServer
from runnerlib.service.tls import Certificate, trusted

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
                    return await client.batch(runner.view, "echo", items, wait_seconds=1, result_bytes=16 * MIB)

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
    runner = RunnerView(id="r", name="r", host=host, boot="b", level="full", algorithms=["echo"])

    async def scenario():
        async with RunnerClient() as client:
            with pytest.raises(NotSent):
                await client.batch(runner, "echo", [Item("t1", 1)], wait_seconds=0, result_bytes=MIB)
            with pytest.raises(NotSent):
                await client.run(runner, "echo", Item("t1", 1), timeout_seconds=1, result_bytes=MIB)
            with pytest.raises(NotSent):
                await client.cancel(runner, "t1")

    go(scenario())


OLD, NEW = "o" * 40, "n" * 40


@pytest.fixture
def asking_runner(make_runner):
    """A runner that answers 401 to all but its own environment; what it was asked with, and by which name."""
    token = run_token_of(RunnerKeys([OLD]).runner_token("text"))
    runner, seen = make_runner(), []
    plain = runner._batch

    async def answer(request):
        seen.append((request.headers.get("Host"), request.headers.get("Authorization")))
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response({"code": "unauthorized", "detail": "no"}, status=401)
        return await plain(request)

    runner._batch = answer
    return runner, seen, token


def view_of(runner, **more):
    return runner.view.model_copy(
        update={
            "name": "text",
            "key_id": RunnerKeys([OLD]).runner_of(RunnerKeys([OLD]).runner_token("text")).key_id,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("keys", "key_id", "told"),
    [
        ([NEW], None, "RUNNER_KEYS_FILE"),
        (None, None, "RUNNER_KEYS_FILE"),
        ([NEW], RunnerKeys([NEW]).runner_of(RunnerKeys([NEW]).runner_token("text")).key_id, "RUNNER_TOKEN"),
    ],
)
def test_runner_that_asks_for_another_token_was_sent_nothing(go, asking_runner, keys, key_id, told):
    runner, _, _ = asking_runner
    more = {} if key_id is None else {"key_id": key_id}

    async def scenario():
        await runner.start()
        async with RunnerClient(keys=keys and RunnerKeys(keys)) as client:
            with pytest.raises(NotSent, match=told):
                await client.batch(view_of(runner, **more), "echo", [Item("t1", 1)], wait_seconds=0, result_bytes=MIB)
        await runner.kill()

    go(scenario())


def test_run_token_is_made_from_the_key_that_the_runner_has(go, asking_runner):
    runner, seen, token = asking_runner

    async def scenario():
        await runner.start()
        async with RunnerClient(keys=RunnerKeys([NEW, OLD])) as client:
            await client.batch(view_of(runner), "echo", [Item("t1", 1)], wait_seconds=0, result_bytes=MIB)
        await runner.kill()

    go(scenario())
    assert [said for _, said in seen] == [f"Bearer {token}"]


def test_runner_is_called_at_the_address_that_discovery_checked_and_by_its_name(go, asking_runner):
    runner, seen, _ = asking_runner

    async def scenario():
        await runner.start()
        port = runner.view.host.rpartition(":")[2]
        view = view_of(runner, host=f"http://elsewhere.invalid:{port}", address="127.0.0.1")
        async with RunnerClient(keys=RunnerKeys([OLD])) as client:
            await client.batch(view, "echo", [Item("t1", 1)], wait_seconds=0, result_bytes=MIB)
        await runner.kill()
        return port

    port = go(scenario())
    assert [host for host, _ in seen] == [f"elsewhere.invalid:{port}"]


@pytest.mark.parametrize("name", ["runner.invalid", "elsewhere.invalid"])
def test_certificate_is_checked_by_the_name_though_the_address_is_what_discovery_checked(name, go, tmp_path):
    authority = Authority(tmp_path)
    seen = []

    async def runner(scope, receive, send):
        seen.append(dict(scope["headers"])[b"host"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'[{"id":"t1","attempt":1,"state":"running"}]'})

    async def scenario():
        certificate = Certificate(*authority.sign("runner", "runner.invalid"))
        async with (
            HttpServer(runner, "127.0.0.1", 0, allowed_hosts=[name], certificate=certificate) as server,
            RunnerClient(tls=trusted(authority.file)) as client,
        ):
            host = f"https://{name}:{server.port}"
            view = RunnerView(
                id="r", name="text", host=host, boot="b", level="full", algorithms=[], address="127.0.0.1"
            )
            call = client.batch(view, "echo", [Item("t1", 1)], wait_seconds=0, result_bytes=MIB)
            if name == "runner.invalid":
                assert len((await call).entries) == 1
                await client.cancel(view, "t1")
            else:
                with pytest.raises(NotSent, match="elsewhere"):
                    await call
        return server.port

    port = go(scenario())
    assert seen == ([f"{name}:{port}"] * 2 if name == "runner.invalid" else [])
