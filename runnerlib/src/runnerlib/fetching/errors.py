"""What a fetch raises. The class says whether another attempt may help."""

#: Answers that a later request may not get.
_PASSING = frozenset({408, 425, 429})


class FetchRefused(ValueError):
    """The same address will not do the next time either: the task fails at once, and its sender reads the message.

    `status` is the HTTP status of the answer, when there was one.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FetchFailed(ConnectionError):
    """It may work in a moment: the task is tried again. `status` as in FetchRefused."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FetchTimedOut(FetchFailed, TimeoutError):
    """It was not there in time."""


def for_status(shown: str, status: int, phrase: str = "") -> FetchRefused | FetchFailed:
    """The error for an answer that is no content."""
    answered = f"{shown} answered {status}{' ' + phrase if phrase else ''}"
    if status >= 500 or status in _PASSING:
        return FetchFailed(f"{answered}; its server may be able to give it later", status=status)
    return FetchRefused(f"{answered}; send an address that gives the content itself, to anybody", status=status)
