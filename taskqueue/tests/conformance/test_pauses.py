"""Pauses of algorithms, on every store."""

import time

from taskqueue import pauses
from taskqueue.pauses import PauseWatch, pause_sentence
from taskqueue.tasks import Pause
from taskqueue.tokens import AuditNote


def test_pause_is_kept_and_the_first_one_counts(run, open_store):
    async def scenario():
        async with open_store() as store:
            assert await store.paused() == {}
            before = time.time()
            first = await store.pause("upper", "on-call", note=AuditNote("pause", "a1"))
            assert first.by == "on-call" and before - 1 <= first.at <= time.time() + 1
            assert await store.pause("upper", "another", note=AuditNote("pause", "b2")) == first
            await store.pause("ocr", "")
            assert await store.paused() == {"upper": first, "ocr": Pause("", (await store.paused())["ocr"].at)}
            await store.resume("upper", note=AuditNote("resume", "b2"))
            await store.resume("upper", note=AuditNote("resume", "b2"))
            assert list(await store.paused()) == ["ocr"]
            entries = [(each.action, each.who, each.ids) for each in await store.tokens.audit()]
            assert entries == [("resume", "b2", ("upper",)), ("pause", "a1", ("upper",))]

    run(scenario())


def test_watch_tells_of_changes_and_of_its_first_answer(run, open_store, monkeypatch):
    monkeypatch.setattr(pauses, "READ_EVERY_SECONDS", 0.0)

    async def scenario():
        async with open_store() as store:
            told = []
            watch = PauseWatch(store, lambda: told.append(list(watch.paused)))
            assert (watch.is_known, watch.paused) == (False, {})
            await watch.read()
            await watch.read()
            await store.pause("upper", "")
            await watch.read()
            await watch.read()
            await store.resume("upper")
            await watch.read()
            assert watch.is_known and told == [[], ["upper"], []]

    run(scenario())


def test_sentence_names_who_and_since_when():
    assert pause_sentence("upper", Pause("on-call", 0.0)) == "'upper' is paused by on-call since 1970-01-01T00:00:00Z"
    assert pause_sentence("upper", Pause("", 0.0)) == "'upper' is paused since 1970-01-01T00:00:00Z"
