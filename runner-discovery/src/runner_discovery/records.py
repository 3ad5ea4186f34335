"""Plain data of the registry: what is saved, and what is told."""

from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from runnerlib.contract import AlgorithmDescription, RunnerRegistration, RunnerView

#: Changes when a newer snapshot could not be read by an older version.
SNAPSHOT_VERSION = 1


@dataclass
class RunnerRecord:
    """A live runner. `expires_at` is None for a plain one: it has no lease."""

    id: str
    registration: RunnerRegistration
    #: host as the runner wrote it; the original pattern's clients get back what they sent
    shown_host: str
    expires_at: float | None
    #: algorithm → digest of its schemas
    digests: dict[str, str] = field(default_factory=dict)
    #: algorithm → number of the registration that first brought this (boot, schema); the highest is current
    orders: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownAlgorithm:
    """An algorithm that was registered once, as it was described last."""

    description: AlgorithmDescription
    digest: str


@dataclass(frozen=True, order=True)
class Conflict:
    """Two live runners offer one algorithm with different schemas; `outdated` gets no new work."""

    algorithm: str
    current: str
    outdated: str


class RunnerStatus(RunnerView):
    """A live runner and what is left of its lease."""

    lease_left_seconds: float | None = Field(default=None, description="None: a plain registration, without lease.")


class SavedRunner(BaseModel):
    """A runner in the snapshot."""

    id: str
    shown_host: str
    has_lease: bool
    registration: RunnerRegistration
    orders: dict[str, int]


class Snapshot(BaseModel):
    """All that a restarted registry needs to give the same catalogue at once."""

    version: int = SNAPSHOT_VERSION
    sequence: int = Field(default=0, ge=0)
    algorithms: list[AlgorithmDescription] = []
    runners: list[SavedRunner] = []
    left: dict[str, str] = {}
