"""TLS on both sides: the certificate that a service shows, how it lets connections in, and whom its calls trust."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

from runnerlib.service.connection_limit import Connection, ConnectionLimit
from runnerlib.service.lifecycle import StartupError
from runnerlib.service.logs import get_logger

#: From the connection to the end of the handshake.
HANDSHAKE_SECONDS = 10.0
#: How often the files are looked at: a certificate is renewed days before it ends.
LOOK_SECONDS = 10.0
_TIMES: dict[str, Any] = {"ssl_handshake_timeout": HANDSHAKE_SECONDS}
if sys.version_info >= (3, 11):
    #: A peer that does not say goodbye keeps its connection no longer than this.
    _TIMES["ssl_shutdown_timeout"] = 2.0

log = get_logger(__name__)


class Certificate:
    """A certificate with its key, in two PEM files. `context` serves with what is in them; see :meth:`follow`.

    Raises StartupError for files that cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._files = (certificate, key)
        self._look_seconds = look_seconds
        self._seen = self._state()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(self.context)

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None) -> "Certificate | None":
        """None where neither is set."""
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise StartupError("TLS_CERTIFICATE_FILE and TLS_KEY_FILE belong together; set both, or neither")
        return cls(certificate, key)

    async def follow(self) -> None:
        """Takes renewed files for the connections that come after them, until cancelled. Files that do not fit wait."""
        while True:
            await asyncio.sleep(self._look_seconds)
            state = self._state()
            if state == self._seen:
                continue
            self._seen = state
            try:
                # Not into the one that is in use, which half of a pair would spoil.
                self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
                self._load(self.context)
                log.info("the renewed certificate is in use", certificate=str(self._files[0]))
            except StartupError as error:
                log.warning("the changed certificate cannot be used; the last one stays in use", reason=str(error))

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_state_of(file) for file in self._files]

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self._files
        for name, file in (("TLS_CERTIFICATE_FILE", certificate), ("TLS_KEY_FILE", key)):
            try:
                file.read_bytes()
            except OSError as error:
                raise StartupError(f"{name} names {str(file)!r}, which cannot be read: {error.strerror}") from None
        try:
            context.load_cert_chain(certificate, key, _no_passphrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise StartupError("TLS_KEY_FILE is not the key of the certificate in TLS_CERTIFICATE_FILE") from None
            raise StartupError(
                "TLS_CERTIFICATE_FILE and TLS_KEY_FILE must be PEM files, the service's own certificate first: "
                f"{error.reason or error}"
            ) from None


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _no_passphrase() -> NoReturn:
    """Without it, OpenSSL would ask on the terminal."""
    raise StartupError("the key in TLS_KEY_FILE has a passphrase; write it without one, readable by its owner alone")


def trusted(ca_certificates: Path | None) -> ssl.SSLContext:
    """For calls: trusts the system's authorities, and those in the file. Raises StartupError."""
    context = ssl.create_default_context()
    if ca_certificates is not None:
        try:
            context.load_verify_locations(ca_certificates)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or "it is no PEM file"
            raise StartupError(f"CA_CERTIFICATES_FILE names {str(ca_certificates)!r}: {reason}") from None
    return context


def client_trust(ca_certificates: Path | None) -> ssl.SSLContext | bool:
    """The same for an HTTP client that trusts the system's by itself: it is told so by True. A context takes 3 MB."""
    return True if ca_certificates is None else trusted(ca_certificates)


async def shake_hands(
    connection: socket.socket,
    context: ssl.SSLContext,
    make_protocol: Callable[[], asyncio.Protocol],
    limit: ConnectionLimit,
    connections: set[Connection],
) -> None:
    """Gives a connection that speaks TLS to `make_protocol`'s. Raises OSError for others, and CancelledError.

    The event loop tells nobody of a connection before its handshake is over: nothing would bound those.
    """
    task = asyncio.current_task()
    assert task is not None
    handshake = _Handshake(connection, task)
    connections.add(handshake)
    try:
        limit.admit(handshake, cast(asyncio.Transport, handshake), connections)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(make_protocol, connection, ssl=context, **_TIMES)
    finally:
        connections.discard(handshake)
        limit.forget(handshake)


class _Handshake:
    """A connection until its handshake is over. It counts as an idle one."""

    is_sending = False

    def __init__(self, connection: socket.socket, task: "asyncio.Task[None]") -> None:
        self._connection = connection
        self._task = task

    def get_extra_info(self, name: str) -> socket.socket:
        """As of a transport, which there is none of yet."""
        assert name == "socket"
        return self._connection

    def abort(self) -> None:
        self._task.cancel()

    close_idle = shutdown = abort
