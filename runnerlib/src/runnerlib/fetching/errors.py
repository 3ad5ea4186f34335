"""What a fetch raises. The class says whether another attempt may help."""

#: Statuses below 500 that a later request may not get.
_TRANSIENT = frozenset({408, 425, 429})


class FetchRefused(ValueError):
    """The same URL will fail again: the task fails at once, and its sender reads the message.

    `status` is the HTTP status of the answer, or None.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FetchFailed(ConnectionError):
    """Another attempt may succeed: the task is retried. `status` as in FetchRefused."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FetchTimedOut(FetchFailed, TimeoutError):
    """The time limit of the fetch passed."""


def for_status(shown: str, status: int, phrase: str = "") -> FetchRefused | FetchFailed:
    """The error for an answer outside of 200-299."""
    answered = f"{shown} answered {status}{' ' + phrase if phrase else ''}"
    if status >= 500 or status in _TRANSIENT:
        return FetchFailed(f"{answered}; its server may be able to give it later", status=status)
    return FetchRefused(f"{answered}; send an address that gives the content itself, to anybody", status=status)
