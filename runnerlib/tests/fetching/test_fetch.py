"""The ways to call it: one, many at once, from coroutines."""

import asyncio
import os
import signal
import threading
import time

import pytest

from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.errors import FetchFailed, FetchRefused
from runnerlib.fetching.fetch import Fetch
from runnerlib.fetching.urls import Fetched
from runnerlib.testing import FakeFetch


def test_many_keeps_the_order_and_each_failure_to_itself(server, fetch):
    paths = ["bytes/1", "status/404", "bytes/2", "status/503", "claims/9", "bytes/3"]
    found = fetch.many([*(f"{server.url}/{path}" for path in paths), "file:///etc/passwd", 7])
    kinds = [type(one) for one in found]
    assert kinds == [Fetched, FetchRefused, Fetched, FetchFailed, FetchFailed, Fetched, FetchRefused, FetchRefused]
    assert [one.content for one in found if isinstance(one, Fetched)] == [b"x", b"xx", b"xxx"]
    assert fetch.many([]) == []


def test_many_are_downloaded_at_once_but_no_more_than_told():
    meeting, running, most = threading.Barrier(3), [], []

    def download(url, limits):
        running.append(url)
        most.append(len(running))
        meeting.wait(10)
        running.remove(url)
        return Fetched(url.encode(), "", url)

    found = Fetch(FetchRules(), download).many([str(i) for i in range(6)], at_once=3)
    assert [one.content for one in found] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert max(most) == 3


def test_many_can_go_on_with_each_as_it_comes():
    def length(fetched):
        return 1 // len(fetched.content)

    answers = {"http://a/1": b"x", "http://a/2": b"", "http://a/3": 404}
    found = FakeFetch(answers).many(answers, length)
    assert found[0] == 1
    assert [type(one) for one in found[1:]] == [ZeroDivisionError, FetchRefused]


def test_coroutines_download_at_once(server, fetch):
    async def scenario():
        urls = [f"{server.url}/{path}" for path in ("bytes/1", "status/404", "bytes/2")]
        return await asyncio.gather(*map(fetch.aio, urls), return_exceptions=True)

    first, second, third = asyncio.run(scenario())
    assert (first.content, type(second), third.content) == (b"x", FetchRefused, b"xx")


def test_a_cancelled_coroutine_takes_its_download_with_it(server, fetch):
    async def scenario():
        task = asyncio.ensure_future(fetch.aio(f"{server.url}/drip", timeout_seconds=60))
        while not server.hits:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = time.monotonic()
    asyncio.run(asyncio.wait_for(scenario(), 10))
    fetch._executor().shutdown(wait=True)  # returns when no download is left
    assert time.monotonic() - started < 15


def test_a_blocking_call_in_a_coroutine_is_told(fetch):
    async def scenario():
        fetch("data:,a")

    with pytest.raises(RuntimeError, match=r"write `await fetch.aio\(...\)` in an async def"):
        asyncio.run(scenario())


def test_handlers_can_tell_the_errors_apart(server, fetch):
    with pytest.raises(fetch.Refused):
        fetch(f"{server.url}/status/404")
    with pytest.raises(fetch.Failed):
        fetch(f"{server.url}/status/500")


def test_a_process_that_a_handler_forks_downloads_by_threads_of_its_own():
    fetch = FakeFetch({"http://a/1": b"x"})
    assert asyncio.run(fetch.aio("http://a/1")).content == b"x"
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        code = 1
        try:
            code = 0 if asyncio.run(fetch.aio("http://a/1")).content == b"x" else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
