"""The errors of this package. Every message says what to do."""


class WorkerError(Exception):
    """Base of this package's errors."""


class PortTaken(WorkerError):
    """Another program listens on a port that we need."""


class EnvironmentBroken(WorkerError):
    """A runner's virtual environment could not be made."""


class AdapterRefused(WorkerError):
    """A runner's adapter has mistakes; the message is what `python -m runnerlib check` says."""


class NoRunners(WorkerError):
    """The folder of runners does not hold what was asked for."""


class AlreadyRunning(WorkerError):
    """Another worker uses this data folder."""


class NotRunning(WorkerError):
    """A command needs a running environment, and there is none."""


class StartFailed(WorkerError):
    """A process did not come up."""


class UnsuitableServers(WorkerError):
    """The broker and the database that were named do not go together."""


class BadScale(WorkerError):
    """`--scale` or SCALE cannot be read."""


class BadName(WorkerError):
    """A new runner cannot have this name."""


class TakeOverRefused(WorkerError):
    """Discovery did not give the algorithm to that runner; the message is its own."""


class BadVariables(WorkerError):
    """A runner's file of variables cannot be used."""


class BadSecrets(WorkerError):
    """The keys or tokens of the environment cannot be read or made."""
