"""The health check of a container: ``python -IS probe.py [PORT]``. Little is imported: it runs all the time.

It ends with 0 when the process at PORT (without one, the variable's) is ready, with 1 when something of it cannot work.
While a runner loads it waits, through all looks for about 20 minutes: a large model is not unhealthy, and what cannot
load is known at once.
"""

import os
import socket
import sys
import time

_PORT = "8000"
#: A process that does not answer for this long hangs.
_ANSWER_SECONDS = 8.0
#: Docker ends it a little later; the next probe then continues to wait.
_MOST_SECONDS = 290.0
_PAUSE_SECONDS = 1.0
_MOST_BYTES = 65536
#: Reasons of parts that have not loaded yet, as JSON.
_LOADING = (b'"loading"', b'"starting"')


def main(port: int, *, most_seconds: float = _MOST_SECONDS, pause_seconds: float = _PAUSE_SECONDS) -> int:
    """The exit code."""
    deadline = time.monotonic() + most_seconds
    while True:
        try:
            answer = _ask(port)
        except ConnectionRefusedError:
            # It is still imported; were it dead, its container would have ended.
            pass
        except OSError:
            return 1
        else:
            head, _, body = answer.partition(b"\r\n\r\n")
            if b" 200 " in head[:20]:
                return 0
            if not any(word in body for word in _LOADING):
                return 1
        if time.monotonic() > deadline:
            return 1
        time.sleep(pause_seconds)


def _ask(port: int) -> bytes:
    with _connected(port) as connection:
        connection.sendall(b"GET /healthz/ready HTTP/1.0\r\n\r\n")
        answer = b""
        while len(answer) < _MOST_BYTES and (more := connection.recv(_MOST_BYTES)):
            answer += more
    return answer


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS)
    if not os.environ.get("TLS_CERTIFICATE_FILE"):
        return connection
    import ssl  # takes longer than all else

    # Its certificate is for the name that others know, and nobody else is at this machine's own address.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT") or _PORT)))
