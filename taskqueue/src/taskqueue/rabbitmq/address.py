"""The broker's address: one URL, several hosts, with or without TLS."""

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from taskqueue.errors import UnsuitableAddress

#: Default of `heartbeat`: a connection that is silent for one and a half of it is given up.
HEARTBEAT_SECONDS = 15
#: Default of `blocked_connection_timeout`: how long a broker may block a publisher before it is connected to again.
BLOCKED_SECONDS = 30.0

_PORTS = {"amqp": 5672, "amqps": 5671}
_TLS_OPTIONS = ("cafile", "certfile", "keyfile", "verify")
_OPTIONS = ("heartbeat", "blocked_connection_timeout")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The parts of a queue URL. `hosts` are alternatives; `tls` is None for plain TCP."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str
    vhost: str
    heartbeat_seconds: int = HEARTBEAT_SECONDS
    blocked_seconds: float = BLOCKED_SECONDS
    tls: ssl.SSLContext | None = None

    @property
    def shown(self) -> str:
        """The address without the password, for logs and messages."""
        scheme = "amqps" if self.tls else "amqp"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{quote(self.user, safe='')}@{hosts}/{quote(self.vhost, safe='')}"

    def __repr__(self) -> str:
        return f"BrokerAddress({self.shown})"


def parse_queue_url(url: str) -> BrokerAddress:
    """Reads `amqp://user:password@host1:5672,host2/vhost?heartbeat=15` (or `amqps://` with `cafile=…`).

    Raises UnsuitableAddress, whose message never contains the password.
    """
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise UnsuitableAddress("The queue URL must begin with amqp:// or amqps://.")
    if "#" in rest:
        raise UnsuitableAddress("The queue URL contains a '#'; write %23 where it belongs to a name or a password.")
    rest, _, query = rest.partition("?")
    authority, _, vhost = rest.partition("/")
    if "@" in query.partition("=")[0] or ("@" in vhost + query and "@" not in authority):
        # Before any of it is shown: what would be quoted is a part of the password.
        raise UnsuitableAddress("The queue URL's password contains ?, / or @; write %3F, %2F and %40 for them.")
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    options = _options(query, scheme)
    heartbeat = _seconds(options, "heartbeat", HEARTBEAT_SECONDS)
    if heartbeat != int(heartbeat) or not 1 <= heartbeat <= 3600:
        raise UnsuitableAddress("The queue URL's option 'heartbeat' must be whole seconds, from 1 to 3600.")
    return BrokerAddress(
        hosts=tuple(_host(host, scheme) for host in hosts.split(",")),
        user=unquote(user) or "guest",
        password=unquote(password) if credentials else "guest",
        vhost=_vhost(vhost),
        heartbeat_seconds=int(heartbeat),
        blocked_seconds=_seconds(options, "blocked_connection_timeout", BLOCKED_SECONDS),
        tls=_tls(options) if scheme == "amqps" else None,
    )


def _host(text: str, scheme: str) -> tuple[str, int]:
    text = text.strip()
    name, port = text, ""
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in text:
        name, _, port = text.rpartition(":")
    if not name:
        raise UnsuitableAddress("The queue URL names no host; write amqp://user:password@host:port/vhost.")
    if not port:
        return name, _PORTS[scheme]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UnsuitableAddress(f"The queue URL's port for host '{name}' must be a number between 1 and 65535.")
    return name, int(port)


def _vhost(name: str) -> str:
    """`…/name` is that virtual host; without a path, or with a lone slash, it is the broker's default, `/`."""
    if "@" in name:
        raise UnsuitableAddress("The queue URL's password or virtual host contains @ or /; write %40 and %2F for them.")
    if "/" in name:
        raise UnsuitableAddress("The queue URL's virtual host contains a slash; write it as %2F.")
    return unquote(name) or "/"


def _options(query: str, scheme: str) -> dict[str, str]:
    allowed = _OPTIONS + _TLS_OPTIONS if scheme == "amqps" else _OPTIONS
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            hint = " (only with amqps://)" if name in _TLS_OPTIONS else ""
            raise UnsuitableAddress(
                f"The queue URL has an unknown option '{name}'{hint}; known are: {', '.join(allowed)}."
            )
        if name in options:
            raise UnsuitableAddress(f"The queue URL's option '{name}' is there twice.")
        options[name] = value
    return options


def _seconds(options: dict[str, str], name: str, default: float) -> float:
    try:
        seconds = float(options.get(name, default))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise UnsuitableAddress(f"The queue URL's option '{name}' must be a number of seconds above 0.")
    return seconds


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    verify = options.get("verify", "yes").lower()
    if verify not in ("yes", "no", "true", "false", "1", "0"):
        raise UnsuitableAddress("The queue URL's option 'verify' must be yes or no.")
    if "keyfile" in options and "certfile" not in options:
        raise UnsuitableAddress("The queue URL has a 'keyfile' without a 'certfile'.")
    try:
        context = ssl.create_default_context(cafile=options.get("cafile"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"), password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise UnsuitableAddress(f"The queue URL's certificate files cannot be read: {error}.") from None
    if verify in ("no", "false", "0"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_password(*_: Any) -> str:
    raise UnsuitableAddress("The queue URL's 'keyfile' is protected by a password; use one that is not.")
