"""Makes values safe to log: no secrets, no control characters, no floods. Pure."""

import re
from typing import Any

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
