"""Whose token it is: what that costs, how long an answer is believed, and what is never remembered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from producer.gateway import verifier as verifying
from producer.gateway.callers import ADMIN
from producer.gateway.verifier import TokenVerifier, looks_like_token, new_token
from runnerlib.service.access import hash_of
from taskqueue.connect import open_embedded
from taskqueue.errors import StoreUnavailable
from taskqueue.protocols import TokenStore
from taskqueue.tokens import AuditNote, Scope, Token


class Counted:
    """A store that counts what is asked of it."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self.looked_up: list[str] = []
        self.used_at = 0

    async def get(self, key_id: str) -> Token | None:
        self.looked_up.append(key_id)
        return await self._store.get(key_id)

    async def used(self, key_id: str) -> None:
        self.used_at += 1
        await self._store.used(key_id)


Scenario = Callable[[Any, Counted], Awaitable[None]]


@pytest.fixture
def go(tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario with a token store, and one around it that counts."""

    def run(scenario: Scenario) -> None:
        async def opened() -> None:
            async with asyncio.timeout(30), open_embedded(tmp_path / "tasks.db") as (_, store):
                await scenario(store.tokens, Counted(store.tokens))

        asyncio.run(opened())

    return run


async def make(store: Any, **more: Any) -> str:
    key_id, text = new_token()
    await store.add(Token(key_id, hash_of(text), "test", frozenset({Scope.READ}), **more), AuditNote("token.create"))
    return text


def test_token_has_256_random_bits_and_is_stored_as_its_hash(go: Callable[[Scenario], None], tmp_path: Path) -> None:
    key_id, text = new_token()
    assert text.startswith(f"ppw_{key_id}_") and len(text.rpartition(f"{key_id}_")[2]) == 43
    assert looks_like_token(f"x {text} y") and not looks_like_token(f"ppw_{key_id}")

    async def scenario(store: Any, _: Counted) -> None:
        text = await make(store)
        assert (await store.get(text.split("_")[1])).secret_hash == hash_of(text)
        secret = text.split("_", 2)[2].encode()
        assert secret not in b"".join(path.read_bytes() for path in tmp_path.iterdir())

    go(scenario)


def test_verified_token_is_looked_up_once_by_all_who_send_it_at_the_same_time(go: Callable[[Scenario], None]) -> None:
    async def scenario(store: Any, counted: Counted) -> None:
        verifier = TokenVerifier(counted)  # type: ignore[arg-type]
        text = await make(store)
        callers = await asyncio.gather(*(verifier.caller(text) for _ in range(50)))
        callers += [await verifier.caller(text) for _ in range(50)]
        assert {each.key_id for each in callers if each is not None} == {text.split("_")[1]}
        assert len(counted.looked_up) == 1
        assert counted.used_at == 1

    go(scenario)


def test_token_that_is_revoked_while_it_is_looked_up_is_refused(go: Callable[[Scenario], None]) -> None:
    async def scenario(store: Any, _: Counted) -> None:
        has_read, may_answer = asyncio.Event(), asyncio.Event()

        class Slow(Counted):
            async def get(self, key_id: str) -> Any:
                token = await super().get(key_id)
                has_read.set()
                await may_answer.wait()
                return token

        verifier = TokenVerifier(Slow(store))  # type: ignore[arg-type]
        text = await make(store)
        asked = asyncio.create_task(verifier.caller(text))
        await asyncio.wait_for(has_read.wait(), 10)
        await store.revoke(text.split("_")[1], AuditNote("token.revoke"))
        verifier.forget(text.split("_")[1])
        later = asyncio.create_task(verifier.caller(text))
        may_answer.set()
        assert await asyncio.gather(asked, later) == [None, None]

    go(scenario)


@pytest.mark.serial
def test_revoked_token_is_refused_by_every_gateway_within_a_second(go: Callable[[Scenario], None]) -> None:
    async def scenario(store: Any, _: Counted) -> None:
        gateways = [TokenVerifier(store), TokenVerifier(store)]
        text = await make(store)
        assert all([await gateway.caller(text) for gateway in gateways])
        await store.revoke(text.split("_")[1], AuditNote("token.revoke"))
        revoked_at = time.monotonic()
        while any([await gateway.caller(text) for gateway in gateways]):
            await asyncio.sleep(0.01)
        assert time.monotonic() - revoked_at < 1.0

    go(scenario)


def test_remembered_token_expires_all_the_same(go: Callable[[Scenario], None]) -> None:
    async def scenario(store: Any, _: Counted) -> None:
        now = [1000.0]
        verifier = TokenVerifier(store, wall=lambda: now[0])
        text = await make(store, expires_at=1001.0)
        assert await verifier.caller(text) is not None
        now[0] = 1001.0
        assert await verifier.caller(text) is None

    go(scenario)


def test_refused_tokens_are_each_looked_up_and_not_remembered(go: Callable[[Scenario], None]) -> None:
    async def scenario(store: Any, counted: Counted) -> None:
        verifier = TokenVerifier(counted)  # type: ignore[arg-type]
        good = await make(store)
        revoked, expired = await make(store), await make(store, expires_at=1.0)
        await store.revoke(revoked.split("_")[1], AuditNote("token.revoke"))
        wrong, unknown = good[:-2] + ("__" if good[-2:] != "__" else "--"), new_token()[1]
        for text in (revoked, expired, wrong, unknown):
            assert await verifier.caller(text) is None
            assert await verifier.caller(text) is None
            assert counted.looked_up[-2:] == [text.split("_")[1]] * 2
        assert await asyncio.gather(*(verifier.caller(new_token()[1]) for _ in range(500))) == [None] * 500
        assert (len(verifier._verified), len(verifier._checking), counted.used_at) == (0, 0, 0)

    go(scenario)


def test_remembered_tokens_are_bounded(go: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "MOST_REMEMBERED", 3)

    async def scenario(store: Any, _: Counted) -> None:
        verifier = TokenVerifier(store)
        for _number in range(10):
            assert await verifier.caller(await make(store)) is not None
        assert len(verifier._verified) == 3

    go(scenario)


def test_text_that_is_no_token_is_refused_without_the_store() -> None:
    async def scenario() -> None:
        verifier = TokenVerifier(None, "x" * 32)
        for text in ("", "x", "x" * 31, "x" * 33, "ppw_", "ppw_abc_def", "é" * 40, "\udcff" * 40, "ppw_" + "a" * 90):
            assert await verifier.caller(text) is None
        assert await verifier.caller("x" * 32) is ADMIN
        with pytest.raises(StoreUnavailable):
            await verifier.caller(new_token()[1])

    asyncio.run(scenario())


def test_without_an_admin_token_no_empty_text_is_one() -> None:
    assert asyncio.run(TokenVerifier(None, "").caller("")) is None
