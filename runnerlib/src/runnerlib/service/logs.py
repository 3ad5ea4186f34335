"""Structured logs on stderr: JSON lines, or readable lines on a terminal. Needs structlog only."""

import logging
import sys
from collections.abc import MutableMapping
from textwrap import indent
from typing import Any, Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runnerlib.service.log_values import clean_exception, clean_value, escape_json, is_secret

#: Their informational lines ("Started server process") say nothing that ours do not.
_CHATTY = ("uvicorn", "uvicorn.error", "aiohttp.access", "asyncio", "sqlalchemy", "alembic", "urllib3")
#: The order in which a person reads a line.
_FIRST_KEYS = ("timestamp", "level", "service", "event")


#: Of an exception of ours, and of a handler: these have lines.
_TRACEBACKS = ("exception", "traceback")


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
        # Below the line, and indented: what a stranger's text adds to a traceback cannot look like a line of the log.
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
            cleaned[key] = "[redacted]"
        else:
            cleaned[key] = clean_value(value, escape=escape)
    return cleaned
