"""Structured logs on stderr: JSON lines, or readable lines on a terminal. Needs structlog only.

What is logged is made safe first: no secrets, no control characters, no floods.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from textwrap import indent
from typing import Any, Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

#: Loggers whose informational lines ("Started server process") add nothing to ours.
_CHATTY = ("uvicorn", "uvicorn.error", "aiohttp.access", "asyncio", "sqlalchemy", "alembic", "urllib3")
#: The order in which a person reads a line.
_FIRST_KEYS = ("timestamp", "level", "service", "event")
#: Of an exception of ours, and of a handler: these keep their lines.
_TRACEBACKS = ("exception", "traceback")

#: Longest logged value, in characters; a longer one is cut and says so.
MAX_VALUE_LENGTH = 1024
#: Longest logged traceback; its end is kept, where the cause is. As JSON it still fits into a line of 64 KB.
MAX_EXCEPTION_LENGTH = 16 * 1024
_MAX_DEPTH = 3
_REDACTED = "[redacted]"

_SECRET_NAMES = r"authorization|password|passwd|secret|token|api[_-]?key|cookie|credentials"  # noqa: S105 - names, not secrets
_SECRET_KEY = re.compile(rf"(?:^|[_-])(?:{_SECRET_NAMES})$", re.IGNORECASE)
_SECRET_TEXT = (
    # ://user:password@host, also when the password has an @ or is without a user
    (re.compile(r"(://[^\s/:@]*):[^\s/]*@"), rf"\1:{_REDACTED}@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {_REDACTED}"),
    # password=..., "token": "...", Authorization: ...
    (
        re.compile(rf"((?:{_SECRET_NAMES})[\"']?\s*[=:]\s*[\"']?)(?!(?:bearer|basic)\s)[^\s\"'&;,]+", re.IGNORECASE),
        rf"\1{_REDACTED}",
    ),
)
#: C0, DEL, C1, line separators, direction marks and lone surrogates: what moves a cursor or breaks a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\x1b"}


class LogSettings(Protocol):
    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...


def configure_logging(service: str, settings: LogSettings) -> None:
    """Sends this process's logs, those of libraries too, to stderr. The last call wins."""
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared = _shared_processors(service)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *_renderers(pretty),
            ],
            keep_exc_info=False,
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module: ``log.info("task recorded", task_id=..., state=...)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _shared_processors(service: str) -> list[Processor]:
    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        add_service,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderers(pretty: bool) -> list[Processor]:
    """Redact, cut and escape what is logged, so that no input can forge a line or leak a secret; then write it."""
    if not pretty:
        as_json = structlog.processors.JSONRenderer(ensure_ascii=False)

        def write(logger: WrappedLogger, method: str, event: EventDict) -> str:
            return escape_json(str(as_json(logger, method, _cleaned(event, escape=False))))

        return [write]

    def clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        cleaned = _cleaned(event, escape=True)
        # Below the line, and indented, so that foreign text in a traceback cannot look like a line of the log.
        tracebacks = [str(cleaned.pop(key)) for key in _TRACEBACKS if cleaned.get(key)]
        if tracebacks:
            cleaned["exception"] = indent("\n".join(tracebacks), "    ")
        return cleaned

    colours = sys.stderr.isatty()
    return [clean, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _cleaned(event: MutableMapping[str, Any], *, escape: bool) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    first = [key for key in _FIRST_KEYS if key in event]
    for key in [*first, *(key for key in event if key not in _FIRST_KEYS)]:
        value = event[key]
        if key in _TRACEBACKS and isinstance(value, str):
            cleaned[key] = clean_exception(value, escape=escape)
        elif is_secret(key):
            cleaned[key] = _REDACTED
        else:
            cleaned[key] = clean_value(value, escape=escape)
    return cleaned


def is_secret(name: str) -> bool:
    """Whether a value under this name must not be shown."""
    return _SECRET_KEY.search(name) is not None


def clean_value(value: Any, *, escape: bool = True) -> Any:
    """The value as it may be logged: numbers as they are, secrets out, at most 1 KB.

    `escape`: text becomes one line. What is written as JSON is escaped there, see :func:`escape_json`.
    """
    cleaned = _clean(value, 0, escape)
    if isinstance(cleaned, dict | list) and len(str(cleaned)) > MAX_VALUE_LENGTH:
        return _cut(str(cleaned))
    return cleaned


def clean_exception(text: str, *, escape: bool = True) -> str:
    """A traceback, which keeps its lines and, when it is too long, the last of them."""
    if len(text) > MAX_EXCEPTION_LENGTH:
        # From the beginning of a line: half a line may be half a secret.
        end = text[-MAX_EXCEPTION_LENGTH + 4 :]
        text = "...\n" + (end.partition("\n")[2] or end)
    text = redact(text)
    return _CONTROL_BUT_LINES.sub(_escape, text) if escape else text


def escape_json(text: str) -> str:
    """JSON without the characters that a JSON writer leaves and a terminal obeys."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def redact(text: str) -> str:
    """Replaces passwords in URLs, bearer tokens, and ``password=...`` by ``[redacted]``."""
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _clean(value: Any, depth: int, escape: bool) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _MAX_DEPTH:
        if isinstance(value, dict):
            return {
                _text(str(key), escape): _REDACTED if is_secret(str(key)) else _clean(item, depth + 1, escape)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [_clean(item, depth + 1, escape) for item in value]
    return _text(value if isinstance(value, str) else _as_text(value), escape)


def _as_text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # an author's class may do anything; a log line must not fail because of it
        return object.__repr__(value)


def _text(text: str, escape: bool) -> str:
    # Cut before searching too: a value may have megabytes.
    cleaned = redact(text[: 4 * MAX_VALUE_LENGTH])
    return _cut(_CONTROL.sub(_escape, cleaned) if escape else cleaned, total=len(text))


def _cut(text: str, total: int = 0) -> str:
    if len(text) <= MAX_VALUE_LENGTH:
        return text
    return f"{text[: MAX_VALUE_LENGTH - 40]}... ({max(total, len(text))} characters)"


def _escape(match: "re.Match[str]") -> str:
    character = match.group()
    code = ord(character)
    return _SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
