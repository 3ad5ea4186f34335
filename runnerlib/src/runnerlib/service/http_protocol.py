"""uvicorn's HTTP protocol with bounds: how large the head of a request may be, and how long it may take."""

import asyncio
from http import HTTPStatus
from typing import Any

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runnerlib.service.problems import problem_response

#: Largest head of a request: request line and header fields. Trailers and chunk extensions share one such bound.
HEAD_BYTES = 32 * 1024
HEAD_FIELDS = 100
#: From the first byte of a head to its end.
HEAD_SECONDS = 10.0
#: How much framing one byte of a chunked body may bring: a chunk of a single byte takes six bytes.
_FRAMING_RATIO = 8
#: How long a refused connection stays open, unread, so that the client gets the answer before its sending fails.
LINGER_SECONDS = 1.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a head that is too large (431) or too slow (408), and closes the connection.

    The parser has no limits of its own, and copies an unfinished field with every read. So it is fed no more at once
    than the head may still have. After the head, what is not body (trailers, chunk extensions) has the same bound.
    What follows a request in the same read is not counted: a pipelined head may have twice as much.
    """

    head_seconds = HEAD_SECONDS
    linger_seconds = LINGER_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._spare_bytes = HEAD_BYTES
        self._reading_body = False
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None

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
        has_part_of_head = not self._reading_body and self._spare_bytes < HEAD_BYTES
        if has_part_of_head and self._head_timer is None and not self._refused:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        # The first byte is here, though it came in a piece that was counted for the request before.
        self._spare_bytes = min(self._spare_bytes, HEAD_BYTES - 1)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        if len(self.headers) > HEAD_FIELDS:
            self._refuse_large(f"There are more than {HEAD_FIELDS} header fields")
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
        self._reading_body = False
        self._spare_bytes = HEAD_BYTES
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_request", "This is not HTTP/1.1; the connection is closed.")

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self.flow.read_paused:
            self._start_head_timer()  # its rest may have come, and is read after the requests before it
        else:
            detail = f"The header fields did not end within {self.head_seconds:g} s; the connection is closed."
            self._refuse(408, "request_timeout", detail)

    def _refuse_large(self, fault: str) -> None:
        self._refuse(431, "headers_too_large", f"{fault}; send less. The connection is closed.")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Reads nothing more, answers the complete requests that came before, and ends the connection.

        The refusal itself is sent only where the client can take it for the answer to this request.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_head_timer()
        self.flow.pause_reading()
        if self._reading_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.pipeline or self.cycle.response_started:
                self.transport.close()
                return
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        self.transport.write(self._answer(status, code, detail))
        self.transport.write_eof()
        self.loop.call_later(self.linger_seconds, self.transport.close)

    def _answer(self, status: int, code: str, detail: str) -> bytes:
        problem = problem_response(status, code, detail, {"Connection": "close"})
        fields = [*self.server_state.default_headers, *problem.raw_headers]
        lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s" % field for field in fields]
        return b"\r\n".join([*lines, b"", bytes(problem.body)])
