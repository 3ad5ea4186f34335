"""Which dead letters are meant, as the gateway is told. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from producer.models import FailureCode


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """None and empty: any. Times carry their zone."""

    algorithm: str | None = None
    codes: Iterable[FailureCode] = ()
    task_id: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None

    def query(self) -> dict[str, str | list[str]]:
        """As parameters of a list; `code` once for each."""
        body = self.body()
        codes = body.pop("codes", None)
        return body | ({"code": codes} if codes else {})

    def body(self) -> dict[str, Any]:
        """As JSON."""
        found = {
            "algorithm": self.algorithm,
            "codes": [FailureCode(code).value for code in self.codes] or None,
            "task_id": self.task_id,
            "created_from": as_text(self.created_from),
            "created_before": as_text(self.created_before),
        }
        return {name: value for name, value in found.items() if value is not None}


def as_text(time: datetime | None) -> str | None:
    """A time without a zone is this machine's."""
    return None if time is None else time.astimezone().isoformat()
