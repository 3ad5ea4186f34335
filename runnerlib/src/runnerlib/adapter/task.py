"""What a handler gets when it asks for ``task``."""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from runnerlib.leftovers import remove

T = TypeVar("T")

#: `track` reports at most this often; a loop of a million steps stays fast.
TRACK_EVERY_SECONDS = 0.1


class TaskCancelled(BaseException):
    """Raised inside a handler whose task was cancelled.

    Not an Exception, so that an author's ``except Exception`` does not swallow it.
    """


@runtime_checkable
class TaskLike(Protocol):
    """What the session needs of a task; :class:`Task` in production, a fake in an author's tests."""

    @property
    def id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def cancelled(self) -> bool: ...
    @property
    def folder(self) -> Path: ...
    def progress(self, fraction: float, message: str = "") -> None: ...
    def track(self, iterable: Iterable[T], message: str = "", *, total: int | None = None) -> Iterator[T]: ...


def _report_nothing(_fraction: float, _message: str) -> None:
    return None


def _never() -> bool:
    return False


class Task:
    """One run of one task.

    `deadline_seconds` counts from now; `report` receives progress, `is_cancelled` is asked at each report.
    """

    def __init__(
        self,
        id: str,
        attempt: int = 1,
        deadline_seconds: float | None = None,
        report: Callable[[float, str], None] = _report_nothing,
        is_cancelled: Callable[[], bool] = _never,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self._ends_at = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        self._report = report
        self._is_cancelled = is_cancelled
        self._folder: Path | None = None

    @property
    def deadline(self) -> float | None:
        """Seconds left, never below 0; None when there is no limit."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    @property
    def cancelled(self) -> bool:
        return self._is_cancelled()

    @property
    def folder(self) -> Path:
        """An empty folder for files of this run; made when it is first asked for, removed after the run."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="task-"))
        return self._folder

    def close(self) -> None:
        """The run has ended."""
        if self._folder is not None:
            remove(self._folder)
            self._folder = None

    def progress(self, fraction: float, message: str = "") -> None:
        """Reports how far the run is, from 0 to 1. Raises TaskCancelled once the task was cancelled."""
        if self._is_cancelled():
            raise TaskCancelled(self.id)
        self._report(checked_fraction(fraction), str(message))

    def track(self, iterable: Iterable[T], message: str = "", *, total: int | None = None) -> Iterator[T]:
        """Yields each item and reports how many are done. `total` is needed when the iterable has no length.

        Raises TaskCancelled between two items once the task was cancelled.
        """
        count = known_length(iterable, total)
        return self._track(iterable, message, count)

    def _track(self, iterable: Iterable[T], message: str, count: int) -> Iterator[T]:
        next_report = 0.0
        for done, item in enumerate(iterable):
            now = time.monotonic()
            if now >= next_report:
                self.progress(min(1.0, done / count) if count else 1.0, message)
                next_report = now + TRACK_EVERY_SECONDS
            elif self._is_cancelled():
                raise TaskCancelled(self.id)
            yield item
        self.progress(1.0, message)


def checked_fraction(fraction: Any) -> float:
    """A number from 0 to 1; a little beyond is cut, since sums of floats end there."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or math.isnan(fraction):
        raise ValueError(f"task.progress() takes a fraction from 0 to 1, not {fraction!r}")
    if not -0.001 <= fraction <= 1.001:
        raise ValueError(f"task.progress() takes a fraction from 0 to 1, not {fraction!r}; divide by the total")
    return min(1.0, max(0.0, float(fraction)))


def known_length(iterable: Iterable[Any], total: int | None) -> int:
    if total is not None:
        return total
    if isinstance(iterable, Sized):
        return len(iterable)
    raise TypeError("task.track() needs to know how many items come; pass total=, or a list")
