"""Structured logs on stderr: JSON lines, or readable lines on a terminal. Needs structlog only."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runnerlib.service.log_values import clean_exception, clean_value, is_secret

#: Their informational lines ("Started server process") say nothing that ours do not.
_CHATTY = ("uvicorn", "uvicorn.error", "aiohttp.access", "asyncio", "sqlalchemy", "alembic", "urllib3")
#: The order in which a person reads a line.
_FIRST_KEYS = ("timestamp", "level", "service", "event")


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
                _clean,
                _renderer(pretty),
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


def _renderer(pretty: bool) -> Processor:
    if not pretty:
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _clean(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Redacts, escapes and cuts what is logged, so that no input can forge a line or leak a secret."""
    cleaned: dict[str, Any] = {}
    first = [key for key in _FIRST_KEYS if key in event]
    for key in [*first, *(key for key in event if key not in _FIRST_KEYS)]:
        value = event[key]
        if key == "exception":
            cleaned[key] = clean_exception(str(value))
        elif is_secret(key):
            cleaned[key] = "[redacted]"
        else:
            cleaned[key] = clean_value(value)
    return cleaned
