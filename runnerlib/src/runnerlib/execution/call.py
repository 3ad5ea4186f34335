"""One call that is in a worker process: its runs, which of them is on, and when its time is over. Pure."""

from pydantic_core import to_json

from runnerlib.adapter.model import Algorithm
from runnerlib.execution import endings
from runnerlib.frames import encode_raw
from runnerlib.run_table import Outcome, Run


class Call:
    """A sequence (each run is a call of the handler of its own) or one call of the batched twin."""

    def __init__(self, number: int, algorithm: Algorithm, runs: list[Run], now: float) -> None:
        self.number = number
        self.runs = runs
        #: a lone run goes to the handler itself, so that only it can be to blame
        self.is_batch = algorithm.has_batch and len(runs) > 1
        self.timeout_seconds = algorithm.options.timeout_seconds
        #: the run that is on; in a batch all are
        self.position = 0
        #: when it started
        self.since = now
        for run in runs if self.is_batch else runs[:1]:
            run.started_at = now

    def frame(self, now: float) -> bytes:
        """The order for the worker process."""
        runs = [
            (run.id, run.attempt, None if run.deadline_at is None else run.deadline_at - now, len(run.payload))
            for run in self.runs
        ]
        header = {"kind": "call", "call": self.number, "algorithm": self.runs[0].algorithm, "batch": self.is_batch}
        return encode_raw(to_json({**header, "runs": runs}), b"".join([run.payload for run in self.runs]))

    def advance(self, at: int, now: float) -> None:
        """The run at `at` has ended; the next one of a sequence has started."""
        if not self.is_batch:
            self.position = at + 1
            self.since = now
            if self.position < len(self.runs):
                self.runs[self.position].started_at = now

    @property
    def current(self) -> Run | None:
        """The run that is on, of a sequence."""
        return self.runs[self.position] if not self.is_batch and self.position < len(self.runs) else None

    @property
    def unfinished(self) -> list[Run]:
        return [run for run in self.runs if run.outcome is None]

    def next_check_at(self) -> float:
        """When :meth:`overdue` may have something to tell."""
        on = self.runs if self.is_batch else self.runs[self.position : self.position + 1]
        deadlines = [run.deadline_at for run in on if run.deadline_at is not None and run.outcome is None]
        return min([self.since + self.timeout_seconds, *deadlines])

    def overdue(self, now: float) -> list[tuple[Run, Outcome]]:
        """Runs whose own time is over, with what becomes of them. A batch that takes too long charges nobody."""
        on = self.runs if self.is_batch else self.runs[self.position : self.position + 1]
        seconds = now - self.since
        if not self.is_batch and seconds >= self.timeout_seconds:
            return [(run, endings.timed_out(self.timeout_seconds, seconds)) for run in on if run.outcome is None]
        return [
            (run, endings.past_deadline(seconds))
            for run in on
            if run.outcome is None and run.deadline_at is not None and run.deadline_at <= now
        ]

    def is_too_long(self, now: float) -> bool:
        return now - self.since >= self.timeout_seconds
