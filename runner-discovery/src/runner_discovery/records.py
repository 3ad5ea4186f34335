"""Data of the registry: in memory, in the snapshot, and in answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from runnerlib.contract import AlgorithmDescription, RunnerRegistration, RunnerView, schema_digest

#: Changes when a newer snapshot could not be read by an older version.
SNAPSHOT_VERSION = 1
#: Approximate size of a runner or an offer in the catalogue besides its texts.
_OVERHEAD_BYTES = 128


@dataclass(frozen=True, slots=True)
class Offer:
    """An algorithm as a runner describes it. Replicas share one, so that equal descriptions are stored once."""

    description: AlgorithmDescription
    #: of its schemas
    digest: str
    #: the description as JSON
    json: bytes


def offers(descriptions: Iterable[AlgorithmDescription]) -> dict[str, Offer]:
    return {each.name: Offer(each, schema_digest(each), each.model_dump_json().encode()) for each in descriptions}


class Origin(BaseModel):
    """Where a registration came from, as discovery checked it."""

    model_config = ConfigDict(frozen=True)

    #: of the key that its token was made with; empty: it came without one
    key_id: str = ""
    peer: str = ""
    #: the only address that its host may stand for; empty: any
    address: str = ""

    def is_as_good_as(self, other: "Origin") -> bool:
        """Whether nothing that others are told differs."""
        return (self.key_id, self.address) == (other.key_id, other.address)


NO_ORIGIN = Origin()


@dataclass(slots=True)
class RunnerRecord:
    """A live runner. `expires_at` is None for a plain registration, which has no lease."""

    id: str
    #: the registration without its algorithms
    head: RunnerRegistration
    #: host as the runner wrote it; clients of the plain API get back what they sent
    shown_host: str
    expires_at: float | None
    offers: dict[str, Offer]
    #: algorithm → number of the registration that introduced this (boot, schema); the highest is current
    orders: dict[str, int] = field(default_factory=dict)
    origin: Origin = NO_ORIGIN

    @property
    def owner_name(self) -> str:
        """The name that owns its algorithms. A plain registration without a token has no name of its own."""
        return self.id if self.expires_at is None and not self.origin.key_id else self.head.name

    @property
    def bytes(self) -> int:
        """Its size in the catalogue, without descriptions."""
        names = sum(len(name) + len(self.id) + _OVERHEAD_BYTES for name in self.offers)
        return len(self.id) + len(self.head.name) + len(self.head.host) + _OVERHEAD_BYTES + names

    @property
    def digests(self) -> dict[str, str]:
        return {name: offer.digest for name, offer in self.offers.items()}

    def has(self, algorithm: str) -> bool:
        """Returns whether it offers the algorithm, or would if that worked at the moment."""
        return algorithm in self.offers or algorithm in self.head.keeps

    def says_the_same(self, head: RunnerRegistration, offers: Mapping[str, Offer]) -> bool:
        return (
            self.head == head
            and list(self.offers) == list(offers)
            and all(self.offers[name].json == offer.json for name, offer in offers.items())
        )

    def view(self) -> RunnerView:
        head = self.head
        return RunnerView(
            id=self.id,
            name=head.name,
            host=head.host,
            boot=head.boot,
            level=head.level,
            algorithms=list(self.offers),
            address=self.origin.address,
            key_id=self.origin.key_id,
        )

    def saved(self) -> "SavedRunner":
        offered = [offer.description for offer in self.offers.values()]
        return SavedRunner(
            id=self.id,
            shown_host=self.shown_host,
            has_lease=self.expires_at is not None,
            registration=self.head.model_copy(update={"algorithms": offered}),
            orders=self.orders,
            origin=self.origin,
        )


class RunnerStatus(RunnerView):
    """A live runner and the remaining time of its lease."""

    lease_left_seconds: float | None = Field(default=None, description="None: a plain registration, without lease.")


class SavedRunner(BaseModel):
    """A runner in the snapshot."""

    id: str
    shown_host: str
    has_lease: bool
    registration: RunnerRegistration
    orders: dict[str, int]
    origin: Origin = NO_ORIGIN


class Snapshot(BaseModel):
    """What a restarted registry needs to serve the same catalogue at once."""

    version: int = SNAPSHOT_VERSION
    sequence: int = Field(default=0, ge=0)
    algorithms: list[AlgorithmDescription] = []
    runners: list[SavedRunner] = []
    left: dict[str, str] = {}
    #: algorithm → name of the runner that it belongs to
    owners: dict[str, str] = {}
    #: owner → seconds since its last runner was gone, as far as a registry was running
    away_seconds: dict[str, float] = {}
    #: algorithm → how long it has been offered; what was offered for the shortest time makes room first
    offered_seconds: dict[str, float] = {}
