import asyncio

import pytest
from raw_http import Served, get, run

from runnerlib.service.http_protocol import HEAD_BYTES, HEAD_FIELDS, BoundedHttpProtocol

CHUNKED = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nA: ", b"a" * 65536, id="a line"),
        pytest.param(b"GET /", b"a" * 65536, id="a path"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10000, id="fields"),
        pytest.param(b"", b"\r\n" * 30000, id="line ends"),
        pytest.param(CHUNKED + b"1;a=", b"a" * 65536, id="a chunk extension"),
        pytest.param(CHUNKED, b"1;" + b"a" * 30000 + b"\r\nx\r\n", id="chunks of a byte with extensions"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\nA: ", b"a" * 65536, id="a trailer"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * 10000, id="trailers"),
    ],
)
def test_what_never_ends_is_refused_while_others_are_answered(
    monkeypatch: pytest.MonkeyPatch, prefix: bytes, unit: bytes
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "linger_seconds", 0.1)

    async def scenario(served: Served) -> None:
        bad, good = await served.connect(), await served.connect()
        bad.send(prefix)
        sending = asyncio.ensure_future(bad.send_endlessly(unit))
        refusal = asyncio.ensure_future(bad.refusal())
        while not refusal.done():
            good.send(get("/echo"))
            assert (await good.answer())[0] == 200
        assert await refusal == (431, "headers_too_large")
        with pytest.raises(ConnectionError):
            await sending

    run(scenario)


@pytest.mark.parametrize("piece", [1000, HEAD_BYTES, 10 * HEAD_BYTES])
def test_a_head_of_the_largest_size_is_answered_and_one_byte_more_is_refused(piece: int) -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        for size, answer in ((HEAD_BYTES, 200), (HEAD_BYTES, 200), (HEAD_BYTES + 1, 431)):
            message = get("/echo", size)
            for start in range(0, size, piece):
                connection.send(message[start : start + piece])
                await connection.writer.drain()
            assert (await connection.answer())[0] == answer

    run(scenario)


def test_a_head_that_is_too_large_is_refused_before_it_ends() -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(get("/echo", 2 * HEAD_BYTES)[: HEAD_BYTES + 1])
        assert await connection.refusal() == (431, "headers_too_large")

    run(scenario, seconds=5)


def test_a_request_has_no_more_than_so_many_fields() -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(b"GET /echo HTTP/1.1\r\n", b"A: b\r\n" * HEAD_FIELDS, b"\r\n")
        assert (await connection.answer())[2] == ["/echo", 0, HEAD_FIELDS]
        connection.send(b"GET /echo HTTP/1.1\r\n", b"A: b\r\n" * (HEAD_FIELDS + 1), b"\r\n")
        assert await connection.refusal() == (431, "headers_too_large")

    run(scenario)


@pytest.mark.parametrize("before", [b"", get("/echo"), get("/echo") + get("/echo")])
@pytest.mark.parametrize("is_one_write", [True, False])
def test_a_head_that_does_not_end_in_time_is_refused(
    monkeypatch: pytest.MonkeyPatch, before: bytes, is_one_write: bool
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "head_seconds", 0.2)

    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(before, b"GET /echo HT" if is_one_write else b"")
        for _ in range(before.count(b"GET")):
            assert (await connection.answer())[0] == 200
        if not is_one_write:
            connection.send(b"GET /echo HT")
        assert await connection.refusal() == (408, "request_timeout")

    run(scenario)


def test_the_time_of_a_head_does_not_bound_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "head_seconds", 0.2)

    async def scenario(served: Served) -> None:
        held, late = await served.connect(), await served.connect()
        held.send(get("/held")[:10])
        await held.writer.drain()
        held.send(get("/held")[10:])
        late.send(b"GET")
        assert await late.refusal() == (408, "request_timeout")
        served.app.release.set()
        assert (await held.answer())[2] == ["/held", 0, 1]

    run(scenario)


def test_a_head_is_not_late_while_requests_before_it_keep_it_from_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "head_seconds", 1.0)

    async def scenario(served: Served) -> None:
        held, late = await served.connect(), await served.connect()
        held.send(get("/held"))
        await served.app.holding.wait()
        held.send(get("/second"), get("/third")[:10])  # the second one makes the server pause
        await held.writer.drain()
        late.send(b"GET")
        assert await late.refusal() == (408, "request_timeout")
        held.send(get("/third")[10:])
        served.app.release.set()
        assert [(await held.answer())[2][0] for _ in range(3)] == ["/held", "/second", "/third"]

    run(scenario)


@pytest.mark.parametrize("piece", [1, 7, 100000])
def test_pipelined_requests_are_answered_in_their_order(piece: int) -> None:
    messages = b"".join(
        [
            get("/1"),
            b"POST /2 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            CHUNKED.replace(b"/echo", b"/3") + b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n",
            b"\r\n" + get("/4"),
        ]
    )

    async def scenario(served: Served) -> None:
        connection = await served.connect()
        for start in range(0, len(messages), piece):
            connection.send(messages[start : start + piece])
            await connection.writer.drain()
        answers = [(await connection.answer())[2] for _ in range(4)]
        assert answers == [["/1", 0, 1], ["/2", 5, 1], ["/3", 6, 1], ["/4", 0, 1]]

    run(scenario)


def test_bodies_are_not_bounded_here() -> None:
    size = 1024 * 1024

    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(b"POST /echo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size)
        assert (await connection.answer())[2] == ["/echo", size, 1]
        connection.send(CHUNKED, b"1\r\nx\r\n" * 100_000, b"0\r\n\r\n")
        assert (await connection.answer())[2] == ["/echo", 100_000, 1]

    run(scenario)


def test_the_body_after_a_head_of_the_largest_size_is_read() -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        end = b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        connection.send(get("/echo", HEAD_BYTES + 2 - len(end))[:-2], end)
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"hello")
        assert (await connection.answer())[2] == ["/echo", 5, 3]

    run(scenario)


@pytest.mark.parametrize("bad", [get("/large", 2 * HEAD_BYTES), b"\x16\x03\x01\x02\x00"])
def test_requests_before_a_refused_one_are_answered_first(bad: bytes) -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(get("/held"), get("/second"), bad)
        other = await served.connect()
        other.send(bad)
        assert (await other.answer())[0] in (400, 431)
        served.app.release.set()
        assert [(await connection.answer())[2][0] for _ in range(2)] == ["/held", "/second"]
        assert await connection.reader.read() == b""

    run(scenario)


@pytest.mark.parametrize(
    "message", [b"\x16\x03\x01\x02\x00", CHUNKED + b"3\r\nabc\r\nzz\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_answered_with_a_problem(message: bytes) -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(message)
        assert await connection.refusal() == (400, "bad_request")

    run(scenario)


def test_a_broken_body_gets_no_answer_that_could_be_taken_for_another() -> None:
    broken = CHUNKED + b"3\r\nabc\r\nzz\r\n"

    async def scenario(served: Served) -> None:
        early, pipelined = await served.connect(), await served.connect()
        early.send(broken[:-4].replace(b"/echo", b"/early"))
        assert (await early.answer())[2][0] == "/early"
        early.send(broken[-4:])
        assert await early.reader.read() == b""
        pipelined.send(get("/held"), broken)
        await served.app.holding.wait()
        served.app.release.set()
        assert (await pipelined.answer())[2][0] == "/held"
        assert await pipelined.reader.read() == b""

    run(scenario)


def test_a_refused_client_may_go_on_sending_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "linger_seconds", 60)

    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(get("/echo", 2 * HEAD_BYTES))
        assert await connection.refusal() == (431, "headers_too_large")
        for _ in range(50):
            connection.send(b"x")
            await connection.writer.drain()
            await asyncio.sleep(0)

    run(scenario)
