"""What handlers can ask for right of the ``*``: ``task``, ``metrics`` and ``device``."""

import importlib
import importlib.util
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from runnerlib.leftovers import remove

T = TypeVar("T")
M = TypeVar("M", bound=MetricWrapperBase)

#: The setting that leaves the choice of a device to :func:`found_device`.
AUTO_DEVICE = "auto"


class TaskCancelled(BaseException):
    """Raised inside a handler whose task was cancelled.

    Not an Exception, so that an author's ``except Exception`` does not swallow it.
    """


class Task:
    """One run of one task.

    `deadline_seconds` counts from now; `report` receives progress, `is_cancelled` is asked at each report.
    """

    #: `track` reports at most this often: a loop of a million steps stays fast.
    track_every_seconds: ClassVar[float] = 0.1

    def __init__(
        self,
        id: str,
        attempt: int = 1,
        deadline_seconds: float | None = None,
        report: Callable[[float, str], None] = lambda fraction, message: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self._ends_at = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        self._report = report
        self._is_cancelled = is_cancelled
        self._folder: Path | None = None

    @property
    def deadline(self) -> float | None:
        """Seconds left, never below 0; None if there is no limit."""
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
        if self.cancelled:
            raise TaskCancelled(self.id)
        self._report(_checked_fraction(fraction), str(message))

    def track(self, iterable: Iterable[T], message: str = "", *, total: int | None = None) -> Iterator[T]:
        """Yields each item and reports how many are done. `total` is needed if the iterable has no length.

        Raises TaskCancelled between two items once the task was cancelled.
        """
        if total is None:
            if not isinstance(iterable, Sized):
                raise TypeError("task.track() needs to know how many items come; pass total=, or a list")
            total = len(iterable)
        return self._track(iterable, message, total)

    def _track(self, iterable: Iterable[T], message: str, total: int) -> Iterator[T]:
        next_report = 0.0
        for done, item in enumerate(iterable):
            now = time.monotonic()
            if now >= next_report:
                self.progress(min(1.0, done / total) if total else 1.0, message)
                next_report = now + self.track_every_seconds
            elif self.cancelled:
                raise TaskCancelled(self.id)
            yield item
        self.progress(1.0, message)


def _checked_fraction(fraction: Any) -> float:
    """A number from 0 to 1; a little beyond is cut, since sums of floats end there."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or math.isnan(fraction):
        raise ValueError(f"task.progress() takes a fraction from 0 to 1, not {fraction!r}")
    if not -0.001 <= fraction <= 1.001:
        raise ValueError(f"task.progress() takes a fraction from 0 to 1, not {fraction!r}; divide by the total")
    return min(1.0, max(0.0, float(fraction)))


class Metrics:
    """Prometheus metrics, each created once: a handler may ask for the same name at every call."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, MetricWrapperBase] = {}

    def counter(self, name: str, description: str = "", labels: Sequence[str] = ()) -> Counter:
        return self._get(Counter, name, description, labels)

    def gauge(self, name: str, description: str = "", labels: Sequence[str] = ()) -> Gauge:
        return self._get(Gauge, name, description, labels)

    def histogram(self, name: str, description: str = "", labels: Sequence[str] = ()) -> Histogram:
        return self._get(Histogram, name, description, labels)

    def _get(self, kind: type[M], name: str, description: str, labels: Sequence[str]) -> M:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = kind(name, description or name, labels, registry=self.registry)
        if not isinstance(made, kind):
            raise ValueError(f"metric {name!r} is a {type(made).__name__.lower()} already; use another name")
        return made


def found_device() -> str:
    """``cuda`` if torch is installed and can use a GPU, else ``cpu``. Imports torch."""
    try:
        if importlib.util.find_spec("torch") is None:
            return "cpu"
        return "cuda" if importlib.import_module("torch").cuda.is_available() else "cpu"
    except (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError, NameError, AssertionError):
        # A broken torch, or one that does not fit its numpy: the adapter that imports it will say so better.
        return "cpu"
