"""Where a list goes on, as an opaque word for the client. Pure."""

import base64
import binascii
import re

_LAST_PLACE = 2**63 - 1
_WRITTEN = re.compile(r"([a-z]+):([1-9][0-9]{0,18})")


def write_cursor(kind: str, place: int) -> str:
    """`kind` names the list: a cursor of one list is not mistaken for one of another."""
    return base64.urlsafe_b64encode(f"{kind}:{place}".encode()).decode().rstrip("=")


def read_cursor(kind: str, cursor: str) -> int:
    """Raises ValueError with a sentence for what no list of this kind ever told."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        text = ""
    found = _WRITTEN.fullmatch(text)
    if found is None or found.group(1) != kind or int(found.group(2)) > _LAST_PLACE:
        raise ValueError("must be the 'next' of the page before, as it was told")
    return int(found.group(2))
