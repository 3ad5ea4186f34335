"""Reads ``data:`` URLs (RFC 2397), strictly. Pure."""

import binascii
import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from runnerlib.fetching.errors import FetchRefused
from runnerlib.fetching.limits import Fetched, Limits, bare_type

_TOKEN = r"[a-z0-9!#$&^_.+-]{1,100}"  # noqa: S105 - no password
_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}\Z", re.IGNORECASE)
_MAX_HEAD = 300
_BAD_PERCENT = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
#: What the RFC says where no type is.
_NO_TYPE = "text/plain"


def read_data_url(url: str, limits: Limits) -> Fetched:
    """Raises FetchRefused."""
    head, comma, body = url.strip(" ")[len("data:") :].partition(",")
    if not comma or len(head) > _MAX_HEAD or not url.isascii():
        raise FetchRefused("the data: URL cannot be read; write it like data:image/png;base64,iVBORw0…")
    media_type, _, last = head.rpartition(";")
    is_base64 = last.strip().lower() == "base64"
    content_type = bare_type(media_type if is_base64 else head) or _NO_TYPE
    if not _TYPE.match(content_type):
        raise FetchRefused("the data: URL has no proper type; write it like data:image/png;base64,iVBORw0…")
    shown = f"data:{content_type}{';base64' if is_base64 else ''},…"
    limits.check_type(shown, content_type)
    # Before anything is decoded, and again after it, to the byte.
    length = len(body) - 2 * body.count("%")
    limits.check_size(shown, length * 3 // 4 - 3 if is_base64 else length)
    content = _decoded(body, is_base64, shown)
    limits.check_size(shown, len(content))
    return Fetched(content, content_type, shown)


def _decoded(body: str, is_base64: bool, shown: str) -> bytes:
    if _BAD_PERCENT.search(body):
        raise FetchRefused(f"{shown} has a % that is not followed by two hexadecimal digits; write %25 for a %")
    content = unquote_to_bytes(body)
    if not is_base64:
        return content
    try:
        return b64decode(content, validate=True)
    except binascii.Error:
        raise FetchRefused(f"{shown} is not base64; encode it anew, with its = at the end and without spaces") from None
