"""uvicorn's HTTP protocol with bounds: how large the head of a request may be, how long head and body may take."""

import asyncio
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runnerlib.service.connection_limit import Connection, ConnectionLimit, HealthOnly
from runnerlib.service.problems import problem_response

#: Largest head of a request: request line and header fields. Trailers and chunk extensions share one such bound.
HEAD_BYTES = 32 * 1024
HEAD_FIELDS = 100
#: From the first byte of a head to its end.
HEAD_SECONDS = 10.0
#: A body brings at least so many bytes in every so many seconds until its end.
BODY_BYTES = 10 * 1024
BODY_SECONDS = 10.0
#: Requests of one connection that wait for those before them; beyond it the connection ends after their answers.
MAX_PIPELINED = 64
#: How much framing one byte of a chunked body may bring: a chunk of a single byte takes six bytes.
_FRAMING_RATIO = 8
#: How long a refused connection stays open, unread, so that the client gets the answer before its sending fails.
LINGER_SECONDS = 1.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a head that is too large (431), a head or body that is too slow (408), and closes the connection.

    The parser has no limits of its own, and copies an unfinished field with every read. So it is fed no more at once
    than the head may still have. After the head, what is not body (trailers, chunk extensions) has the same bound.
    What follows a request in the same read is not counted: a pipelined head may have twice as much.

    A connection without a request in progress is closed after uvicorn's `timeout_keep_alive`, also before its first
    request, and earlier when `limit` needs its place. One whose client still reads its answer counts as in progress, if
    it has read some of it in every such time.
    """

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    linger_seconds = LINGER_SECONDS

    def __init__(self, limit: ConnectionLimit, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._spare_bytes = HEAD_BYTES
        self._reading_body = False
        self._refused = False
        #: Runs only while a message has begun and not ended; most come in one piece and need none.
        self._timer: asyncio.TimerHandle | None = None
        self._bytes_in_time = 0
        self._was_paused = False
        #: of the answer, when that was last looked at
        self._unsent_bytes = sys.maxsize
        #: the latest request that an application has
        self._started: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._limit.admit(self, transport, cast(set[Connection], self.connections)):
            self.app = HealthOnly(self.app)
            self.timeout_keep_alive = self._limit.crowded_seconds
        self._watch_idle()

    def data_received(self, data: bytes) -> None:
        fed = 0
        while fed < len(data) and not self._refused:
            if self._spare_bytes <= 0:
                self._refuse_large(f"Header fields, trailers or chunk extensions have more than {HEAD_BYTES} bytes")
                return
            piece = data[fed : fed + self._spare_bytes]
            fed += len(piece)
            self._spare_bytes -= len(piece)
            super().data_received(piece)
        if (self._reading_body or self._spare_bytes < HEAD_BYTES) and not self._refused:
            self._bytes_in_time += len(data)
            if self._timer is None:
                self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._limit.forget(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it, and all that it holds, after a reset

    def on_message_begin(self) -> None:
        # The first byte is here, though it came in a piece that was counted for the request before.
        self._spare_bytes = min(self._spare_bytes, HEAD_BYTES - 1)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._timer is not None:
            self._stop_timer()
        if len(self.headers) > HEAD_FIELDS:
            self._refuse_large(f"There are more than {HEAD_FIELDS} header fields")
            raise HttpParserError
        if len(self.pipeline) >= MAX_PIPELINED:
            raise HttpParserError
        super().on_headers_complete()
        self.headers = []  # for trailers, which are dropped; the request has the other list
        self._reading_body = True
        self._spare_bytes = HEAD_BYTES

    def on_body(self, body: bytes) -> None:
        # Called for every chunk; `min` and `super` would take twice as long.
        spare = self._spare_bytes + (1 + _FRAMING_RATIO) * len(body)
        self._spare_bytes = spare if spare < HEAD_BYTES else HEAD_BYTES
        HttpToolsProtocol.on_body(self, body)

    def on_message_complete(self) -> None:
        if self._timer is not None:
            self._stop_timer()
        self._reading_body = False
        self._spare_bytes = HEAD_BYTES
        super().on_message_complete()
        if self.cycle.response_complete and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._watch_idle()  # it was answered before its body was here

    def on_response_complete(self) -> None:
        self._unsent_bytes = sys.maxsize
        if self._started is not None:
            self._started.body = bytearray()  # what nobody will read
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_idle()
        elif not self._is_in_progress:
            self._limit.request_ends(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._started = cycle
        self._limit.request_begins(self)
        super()._start_asgi_task(cycle, app)

    @property
    def _is_in_progress(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_sending(self) -> bool:
        return self.transport.get_write_buffer_size() > 0

    def close_idle(self) -> None:
        """Closes a connection without a request in progress; what its client did not read is dropped."""
        self.connections.discard(self)
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        is_closing, unsent = self.transport.is_closing(), self.transport.get_write_buffer_size()
        if self._is_in_progress and not is_closing:
            return
        if 0 < unsent < self._unsent_bytes:
            self._unsent_bytes = unsent
            self._watch_idle()
        else:
            self.close_idle()

    def _watch_idle(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_request", "This is not HTTP/1.1; the connection is closed.")

    def _start_timer(self) -> None:
        late: Callable[[], None] = self._body_is_late if self._reading_body else self._head_is_late
        self._timer = self.loop.call_later(self.body_seconds if self._reading_body else self.head_seconds, late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._bytes_in_time = 0

    def _head_is_late(self) -> None:
        if self.flow.read_paused:
            self._start_timer()  # its rest may have come, and is read after the requests before it
        else:
            detail = f"The header fields did not end within {self.head_seconds:g} s; the connection is closed."
            self._refuse(408, "request_timeout", detail)

    def _body_is_late(self) -> None:
        is_paused, was_paused = self.flow.read_paused, self._was_paused
        if self._bytes_in_time >= BODY_BYTES or is_paused or was_paused:
            self._was_paused = is_paused
            self._bytes_in_time = 0
            self._start_timer()
        else:
            rate = f"{BODY_BYTES // 1024} KiB in {self.body_seconds:g} s"
            self._refuse(408, "request_timeout", f"The body comes slower than {rate}; the connection is closed.")

    def _refuse_large(self, fault: str) -> None:
        self._refuse(431, "headers_too_large", f"{fault}; send less. The connection is closed.")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Reads nothing more, answers the complete requests that came before, and ends the connection.

        The refusal itself is sent only where the client can take it for the answer to this request.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_timer()
        self.flow.pause_reading()
        if self._reading_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else self._started
                assert last is not None, "what waits, waits for another"
                last.keep_alive = False
                return
            if self.cycle.response_started:
                self.transport.close()
                return
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        self.transport.write(self._answer(status, code, detail))
        if self.transport.can_write_eof():  # TLS cannot
            self.transport.write_eof()
        self.loop.call_later(self.linger_seconds, self.transport.close)

    def _answer(self, status: int, code: str, detail: str) -> bytes:
        problem = problem_response(status, code, detail, {"Connection": "close"})
        fields = [*self.server_state.default_headers, *problem.raw_headers]
        lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s" % field for field in fields]
        return b"\r\n".join([*lines, b"", bytes(problem.body)])
