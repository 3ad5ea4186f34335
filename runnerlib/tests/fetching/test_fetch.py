"""The ways to call it: one, many at once, from coroutines; and real servers: redirects, sizes, times, kinds."""

import asyncio
import os
import signal
import socket
import threading
import time
import tracemalloc

import pytest

from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.errors import FetchFailed, FetchRefused, FetchTimedOut
from runnerlib.fetching.fetch import USER_AGENT, Fetch
from runnerlib.fetching.urls import Fetched
from runnerlib.testing import FakeFetch

MEBIBYTE = 1024 * 1024


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


def test_content_type_and_final_address_are_told(server, fetch):
    found = fetch(f"{server.url}/to//bytes/5?a=b", accept="image/*")
    assert (found.content, found.content_type, found.url) == (b"xxxxx", "image/png", f"{server.url}/bytes/5?a=b")
    assert "xxxxx" not in repr(found)
    head = server.headers[0]
    assert (head["User-Agent"], head["Accept"], head["Accept-Encoding"]) == (USER_AGENT, "image/*", "identity")
    assert head["Host"] == f"127.0.0.1:{server.port}"


def test_three_redirects_are_followed_and_no_more(server, fetch):
    assert fetch(f"{server.url}/hops/3").content == b"xxx"
    for path in ("hops/5", "loop"):
        server.hits.clear()
        with pytest.raises(FetchRefused, match="leads on more than 3 times; send the final address"):
            fetch(f"{server.url}/{path}")
        assert len(server.hits) == 4


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 410, 451])
def test_an_answer_that_will_not_change_is_permanent(server, fetch, status):
    with pytest.raises(
        FetchRefused, match=rf"/status/{status}\?… answered {status} [A-Z].*; send an address"
    ) as caught:
        fetch(f"{server.url}/status/{status}?key=secret")
    assert caught.value.status == status
    assert not isinstance(caught.value, OSError)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_transient(server, fetch, status):
    with pytest.raises(FetchFailed, match=f"answered {status}") as caught:
        fetch(f"{server.url}/status/{status}")
    assert caught.value.status == status
    assert isinstance(caught.value, OSError)


def test_a_long_stream_is_cut_and_memory_stays_flat(server, fetch):
    tracemalloc.start()
    try:
        with pytest.raises(FetchRefused, match=r"is larger than 1 MiB; send a smaller one"):
            fetch(f"{server.url}/stream/64", max_bytes=MEBIBYTE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MEBIBYTE
    assert server.sent < 32 * MEBIBYTE, "the server was let go on"


def test_what_says_that_it_is_too_large_is_not_read(server, fetch):
    with pytest.raises(FetchRefused, match="is larger than 100 bytes"):
        fetch(f"{server.url}/claims/101", max_bytes=100)
    assert len(fetch(f"{server.url}/bytes/100", max_bytes=100).content) == 100


def test_a_compressed_answer_is_refused_unread(server, fetch):
    tracemalloc.start()
    try:
        with pytest.raises(FetchRefused, match=r"comes compressed \(gzip\) unasked"):
            fetch(f"{server.url}/bomb")
        assert tracemalloc.get_traced_memory()[1] < 100 * MEBIBYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", ["drip", "driphead", "silent"])
def test_one_time_limit_holds_for_all_of_a_download(server, fetch, path):
    started = time.monotonic()
    with pytest.raises(FetchTimedOut, match=f"/{path} was not there within 0.4 s"):
        fetch(f"{server.url}/{path}", timeout_seconds=0.4)
    assert time.monotonic() - started < 5


def test_the_time_limit_holds_for_looking_up_a_name(fetch, monkeypatch):
    released = threading.Event()

    def hang(*_: object, **__: object) -> None:
        released.wait(20)
        raise OSError("too late")

    monkeypatch.setattr("runnerlib.fetching.fetch.socket.getaddrinfo", hang)
    started = time.monotonic()
    with pytest.raises(FetchTimedOut):
        fetch("http://slow.example/", timeout_seconds=0.2)
    assert time.monotonic() - started < 5
    released.set()


def test_a_name_that_nobody_knows_is_transient(fetch, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("runnerlib.fetching.fetch.socket.getaddrinfo", fail)
    with pytest.raises(FetchFailed, match=r"^http://nobody\.invalid/ cannot be reached \(Name or service not known\)$"):
        fetch("http://nobody.invalid/")


def test_a_server_that_is_not_there_is_transient(fetch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(FetchFailed, match="cannot be reached"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/")


def test_the_time_limit_holds_for_a_handshake(fetch):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        started = time.monotonic()
        with pytest.raises(FetchTimedOut):
            fetch(f"https://127.0.0.1:{mute.getsockname()[1]}/", timeout_seconds=0.4)
        assert time.monotonic() - started < 5


def test_chunks_are_put_together(server, fetch):
    assert fetch(f"{server.url}/chunked/abc/d/efg").content == b"abcdefg"


def test_what_breaks_off_is_transient(server, fetch):
    with pytest.raises(FetchFailed, match=r"broke off after 3 of 10 bytes"):
        fetch(f"{server.url}/claims/10")


def test_what_is_not_http_is_transient(server, fetch):
    with pytest.raises(FetchFailed, match=r"does not answer with proper HTTP \(BadStatusLine\)"):
        fetch(f"{server.url}/rubbish")


def test_another_type_than_wanted_is_refused(server, fetch):
    with pytest.raises(FetchRefused, match=r"is image/png; send the address of text/\* or application/pdf$"):
        fetch(f"{server.url}/bytes/3", accept=["text/*", "application/pdf"])
    with pytest.raises(FetchRefused, match=r"is of no stated type; send the address of image/\*$"):
        fetch(f"{server.url}/typeless", accept="image/*")
    assert fetch(f"{server.url}/typeless").content_type == ""


def test_limits_of_the_operator_hold_where_the_handler_says_nothing(server):
    fetch = Fetch(FetchRules(allow_private="127.0.0.1", max_bytes=10))
    with pytest.raises(FetchRefused, match="is larger than 10 bytes"):
        fetch(f"{server.url}/bytes/11")
    assert len(fetch(f"{server.url}/bytes/11", max_bytes=11).content) == 11
