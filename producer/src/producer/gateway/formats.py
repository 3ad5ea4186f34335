"""JSON Schema formats, checked as the runner will check them: by pydantic, in strict JSON mode.

The specification's own checkers are stricter in places (a UUID without hyphens) and looser in others; a door that
refuses what the runner would take is worse than no door.
"""

import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from uuid import UUID

from jsonschema import FormatChecker
from pydantic import AnyUrl, TypeAdapter, ValidationError

_TYPES: dict[str, Any] = {
    "date-time": datetime,
    "date": date,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
    "ipv4network": IPv4Network,
    "ipv6network": IPv6Network,
    "uri": AnyUrl,
}

#: What a value of the format looks like, for messages.
EXAMPLES = {
    "date-time": "2026-05-31T12:00:00Z",
    "date": "2026-05-31",
    "time": "12:00:00",
    "duration": "PT90S",
    "uuid": "6f1c2f0a-52a5-4a5e-9b0e-0d6e7f3c2b1a",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipv4network": "192.0.2.0/24",
    "ipv6network": "2001:db8::/32",
    "uri": "https://example.com/picture.png",
    "email": "name@example.com",
}


def new_format_checker() -> FormatChecker:
    """A checker that knows the formats above; others are left to the runner."""
    checker = FormatChecker(formats=())
    for name, type_ in _TYPES.items():
        checker.checks(name, raises=ValidationError)(_check(TypeAdapter(type_)))
    checker.checks("email")(lambda value: not isinstance(value, str) or "@" in value)
    return checker


def _check(adapter: TypeAdapter[Any]) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        if isinstance(value, str):
            adapter.validate_json(json.dumps(value), strict=True)
        return True

    return fits
