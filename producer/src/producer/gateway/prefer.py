"""The ``Prefer: wait=20`` header (RFC 7240): how long a sender is ready to wait for the result."""

import re

#: Longer waits are cut to this: proxies and clients give up on silent connections.
MOST_WAIT_SECONDS = 60.0

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9}(?:\.\d{1,6})?)"?\s*(?:$|[,;])', re.IGNORECASE)


def wait_seconds(prefer: str | None, default: float = 0.0) -> float:
    """Seconds to wait; `default` without the header. What is not understood is ignored, as the RFC says."""
    found = _WAIT.search(prefer) if prefer else None
    return min(float(found.group(1)), MOST_WAIT_SECONDS) if found else default
