"""What every token store does, and what the audit keeps of every change."""

import time
from dataclasses import replace

import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.sql import tokens as sql_tokens
from taskqueue.tasks import CancelAnswer, DeadAnswer, Failed, Placement
from taskqueue.tokens import UNLIMITED, AuditFilter, AuditNote, Reach, Scope, SendLimits, Session, Token

LIMITS = SendLimits(rate_per_second=0.5, burst=7, bytes_per_second=5_000_000_000, most_waiting=9)
TOKEN = Token(
    "a1",
    "0" * 64,
    "billing",
    frozenset({Scope.SUBMIT, Scope.READ_ALL}),
    ("text_*", "ocr"),
    expires_at=9e9,
    limits=LIMITS,
)
MAKE = AuditNote("token.create", "admin", {"name": "billing"}, "127.0.0.1")


def test_token_is_kept_and_noted_in_the_audit(run, open_store):
    async def scenario():
        async with open_store() as store:
            before = time.time()
            assert await store.tokens.get("a1") is None
            added = await store.tokens.add(TOKEN, MAKE)
            assert added == replace(TOKEN, created_at=added.created_at)
            assert before - 1 <= added.created_at <= time.time() + 1
            assert await store.tokens.get("a1") == added
            (entry,) = await store.tokens.audit()
            assert (entry.who, entry.action, entry.count, entry.ids) == ("admin", "token.create", 1, ("a1",))
            assert (entry.params, entry.client) == ({"name": "billing"}, "127.0.0.1")

    run(scenario())


def test_token_without_limits_has_none_when_it_is_read(run, open_store):
    async def scenario():
        async with open_store() as store:
            await store.tokens.add(replace(TOKEN, limits=UNLIMITED), MAKE)
            assert (await store.tokens.get("a1")).limits == UNLIMITED

    run(scenario())


def test_token_with_a_known_key_id_is_refused_and_not_noted(run, open_store):
    async def scenario():
        async with open_store() as store:
            await store.tokens.add(TOKEN, MAKE)
            with pytest.raises(Exception, match=r"UNIQUE|unique"):
                await store.tokens.add(replace(TOKEN, name="another"), AuditNote("token.create"))
            assert (await store.tokens.get("a1")).name == "billing"
            assert len(await store.tokens.audit()) == 1

    run(scenario())


def test_revoked_token_stays_revoked_and_is_noted_once(run, open_store):
    async def scenario():
        async with open_store() as store:
            await store.tokens.add(TOKEN, MAKE)
            revoked = await store.tokens.revoke("a1", AuditNote("token.revoke"))
            assert revoked.revoked_at is not None and not revoked.is_valid(0)
            assert await store.tokens.revoke("a1", AuditNote("token.revoke")) == revoked
            assert await store.tokens.get("a1") == revoked
            assert await store.tokens.revoke("b2", AuditNote("token.revoke")) is None
            assert [entry.action for entry in await store.tokens.audit()] == ["token.revoke", "token.create"]

    run(scenario())


def test_use_of_a_token_is_written_once_a_minute(run, open_store, monkeypatch):
    async def scenario():
        async with open_store() as store:
            await store.tokens.add(TOKEN, MAKE)
            await store.tokens.used("a1")
            first = (await store.tokens.get("a1")).last_used_at
            await store.tokens.used("a1")
            assert (await store.tokens.get("a1")).last_used_at == first > 0
            monkeypatch.setattr(sql_tokens, "USED_AGAIN_SECONDS", -1.0)
            await store.tokens.used("a1")
            assert (await store.tokens.get("a1")).last_used_at >= first
            await store.tokens.used("unknown")

    run(scenario())


def test_sessions_are_kept_until_they_are_ended_or_over(run, open_store):
    async def scenario():
        async with open_store() as store:
            now, note = time.time(), AuditNote("session.open", "a1")
            sessions = {name: Session(name * 64, "a1", "0" * 64, now + 60) for name in "abc"}
            sessions["b"] = replace(sessions["b"], expires_at=now - 1)
            for session in sessions.values():
                await store.tokens.open_session(session, note)
            assert await store.tokens.session("a" * 64) == sessions["a"]
            assert await store.tokens.session("b" * 64) is None, "dropped when another was opened"
            await store.tokens.end_session("a" * 64)
            await store.tokens.end_session("a" * 64)
            assert await store.tokens.session("a" * 64) is None
            assert await store.tokens.session("c" * 64) == sessions["c"]
            (entry,) = await store.tokens.audit()
            assert (entry.who, entry.action, entry.count) == ("a1", "session.open", 3)

    run(scenario())


def test_tokens_and_audit_are_listed_in_pages(run, open_store):
    async def scenario():
        async with open_store() as store:
            for name in "abc":
                note = AuditNote("token.create", who=name)
                await store.tokens.add(replace(TOKEN, key_id=name), note)
            for listed in (store.tokens.list, store.tokens.audit):
                first = await listed(limit=2)
                rest = await listed(limit=2, before=first.next)
                assert (len(first), len(rest), rest.next) == (2, 1, None)
            assert [token.key_id for token in await store.tokens.list()] == ["c", "b", "a"]
            assert [entry.who for entry in await store.tokens.audit(AuditFilter(who="b"))] == ["b"]
            assert len(await store.tokens.audit(AuditFilter(action="cancel"))) == 0

    run(scenario())


def test_old_entries_of_the_audit_are_dropped(run, open_store):
    async def scenario():
        async with open_store() as store:
            for name in "abc":
                await store.tokens.add(replace(TOKEN, key_id=name), AuditNote("token.create", who=name))
            assert await store.tokens.purge_audit(time.time() - 60, 10) == 0
            assert await store.tokens.purge_audit(time.time() + 60, 2) == 2
            assert [entry.who for entry in await store.tokens.audit()] == ["c"]

    run(scenario())


def test_cancel_reaches_what_it_may_and_is_noted_when_it_changes_something(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            mine, others = Reach("a1", others=False), Reach("b2", others=False)
            assert await store.cancel("t", reach=mine, note=AuditNote("cancel", "a1")) is CancelAnswer.CANCELLED
            assert (await store.get("t")).submitted_by == "a1"
            assert await store.cancel("t", reach=others, note=AuditNote("cancel", "b2")) is CancelAnswer.UNKNOWN
            assert await store.cancel("t", reach=mine, note=AuditNote("cancel", "a1")) is CancelAnswer.FINISHED
            some = Reach("b2", algorithms=("lower*",))
            await store.place([(make_delivery("running"), Placement("running", 1, "text-1", "boot-1"))])
            assert await store.cancel("running", reach=some) is CancelAnswer.UNKNOWN
            assert await store.cancel("running", reach=Reach("b2", algorithms=("up*",))) is CancelAnswer.REQUESTED
            (entry,) = await store.tokens.audit()
            assert (entry.who, entry.ids) == ("a1", ("t",))

    run(scenario())


def test_discards_of_one_call_are_one_entry(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            for name in "abc":
                await store.record([Failed(make_delivery(name), FailureCode.HANDLER_ERROR, "broken")])
            dead = [letter.dead_id for letter in await store.dead_letters()]
            note = AuditNote("discard", "a1")
            assert await store.discard(dead, reach=Reach("a1", others=False), note=note) == [DeadAnswer.UNKNOWN] * 3
            assert len(await store.tokens.audit()) == 0
            await store.discard(dead[:1], note=note)
            await store.discard(dead[1:], note=note)
            await store.discard(dead, note=note)
            (entry,) = await store.tokens.audit()
            assert (entry.count, entry.ids[0], set(entry.ids)) == (3, str(dead[0]), set(map(str, dead)))

    run(scenario())


def test_replay_is_noted_and_reaches_what_it_may(run, open_replaying, make_task, take_all):
    async def scenario():
        async with open_replaying() as (queue, store):
            await queue.publish([make_task("a", submitted_by="a1")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            (delivery,) = await take_all(feed, 1)
            await store.record([Failed(delivery, FailureCode.HANDLER_ERROR, "broken")])
            await queue.ack([delivery])
            (letter,) = await store.dead_letters()
            assert letter.submitted_by == "a1"
            note = AuditNote("replay", "b2")
            none, every = Reach("b2", others=False), Reach("b2")
            assert await queue.replay([letter.dead_id], reach=none, note=note) == [DeadAnswer.UNKNOWN]
            assert await queue.replay([letter.dead_id], reach=every, note=note) == [DeadAnswer.REPLAYED]
            row = await store.get("a")
            assert (row.state, row.submitted_by) == (TaskState.QUEUED, "a1")
            (entry,) = await store.tokens.audit()
            assert (entry.who, entry.action, entry.ids) == ("b2", "replay", (str(letter.dead_id),))

    run(scenario())
