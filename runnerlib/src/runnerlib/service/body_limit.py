"""Refuses a request body that is too large, before it is in memory."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.service.problem_errors import ProblemError, problem_response


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `max_bytes`, chunked ones included.

    Use: ``app.add_middleware(BodyLimit, max_bytes=4 * 1024 * 1024)``.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._detail = (
            f"The body is larger than {max_bytes} bytes; send less, or store the data elsewhere and send a reference."
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced_bytes(scope) > self._max_bytes:
            # The rest of the body is not read: the connection cannot be used again.
            refusal = problem_response(413, "too_large", self._detail, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        seen = 0

        async def limited_receive() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise ProblemError(413, "too_large", self._detail, {"Connection": "close"})
            return message

        await self._app(scope, limited_receive, send)


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
