"""Warns about fields of senders' messages that mean nothing."""

import time
from collections.abc import Sequence

from runnerlib.contract import UnknownField
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: A name is logged once in so long, and so many names.
LOG_AGAIN_SECONDS = 60.0
MOST_NAMES = 20


class UnknownFieldWarnings:
    """The sender of a broker's message cannot be answered with an error, and believes that its fields count.

    A stream of such messages does not flood the log.
    """

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def warn(self, task_id: str, fields: Sequence[UnknownField]) -> None:
        for each in fields:
            now = time.monotonic()
            self._logged_at = {name: at for name, at in self._logged_at.items() if now - at < LOG_AGAIN_SECONDS}
            if each.name in self._logged_at or len(self._logged_at) >= MOST_NAMES:
                continue
            self._logged_at[each.name] = now
            log.warning(
                "a field of a message means nothing and the task runs without it; others are not told for a minute",
                task_id=task_id,
                why=each.sentence,
            )
