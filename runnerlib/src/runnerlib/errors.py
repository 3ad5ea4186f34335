"""Why a request was not accepted; :mod:`runnerlib.app` knows what each code is over HTTP."""

from typing import Literal

RefusalCode = Literal[
    "already_finished",
    "busy",
    "draining",
    "id_conflict",
    "malformed",
    "not_ready",
    "stale_attempt",
    "too_large",
    "unknown_algorithm",
    "unknown_task",
]


class Refusal(Exception):
    """`code` is stable; the text is a sentence that says what to do."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code
