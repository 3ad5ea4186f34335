"""What can come of probing a runner."""

from worker.errors import WorkerError


class Unreachable(WorkerError):
    """Nobody listens at the URL."""


class BadRequest(WorkerError):
    """What was asked for on the command line cannot be done; the message says what to give."""


class Broken(Exception):
    """A check's verdict: what the runner did in place of what the contract wants. Ends a sentence: "…; <this>"."""
