"""What can go wrong while an environment is set up. Every message is a sentence that says what to do."""


class WorkerError(Exception):
    """Base of this package's errors."""


class PortTaken(WorkerError):
    """Another program listens where one of ours must."""


class EnvironmentBroken(WorkerError):
    """A runner's virtual environment could not be made."""


class AdapterRefused(WorkerError):
    """A runner's adapter has mistakes; the message is what `python -m runnerlib check` says."""


class NoRunners(WorkerError):
    """The folder of runners does not hold what was asked for."""


class AlreadyRunning(WorkerError):
    """Another worker uses this data folder."""


class NotRunning(WorkerError):
    """A command needs a running environment and there is none."""


class StartFailed(WorkerError):
    """A part that everything else needs did not come up."""


class UnsuitableServers(WorkerError):
    """The broker and the database that were named do not go together."""


class BadScale(WorkerError):
    """What `--scale` or SCALE says cannot be read."""


class BadName(WorkerError):
    """A new runner cannot have this name."""


class TakeOverRefused(WorkerError):
    """Discovery did not give the algorithm to that runner; the message is its own."""


class BadVariables(WorkerError):
    """A runner's file of variables cannot be used."""
