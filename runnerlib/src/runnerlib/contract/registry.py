"""What a runner tells discovery, and what discovery tells everybody."""

import hashlib
from enum import Enum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runnerlib.contract.names import ALGORITHM_PATTERN
from runnerlib.contract.strict_json import canonical


def _base_url(host: str) -> str:
    """``name:port`` and ``http://name:port/`` both become ``http://name:port``."""
    text = host.strip()
    if "://" not in text:
        text = f"http://{text}"
    scheme, _, rest = text.partition("://")
    rest = rest.rstrip("/")
    if scheme not in ("http", "https") or not rest or any(c in rest for c in "/@?# "):
        raise ValueError(f"host {host[:80]!r} must look like name:port or http://name:port")
    return f"{scheme}://{rest}"


AlgorithmName = Annotated[str, Field(pattern=f"^{ALGORITHM_PATTERN}$")]
#: Base URL of a runner, without a trailing slash.
HostUrl = Annotated[str, Field(max_length=300), AfterValidator(_base_url)]


class RunnerLevel(str, Enum):
    """``plain``: only ``POST /run/{algorithm}``. ``full``: the whole contract."""

    PLAIN = "plain"
    FULL = "full"


class Limits(BaseModel):
    """An algorithm's limits, as its author set them in ``OPTIONS``."""

    timeout_seconds: float = Field(default=300, gt=0, description="Bounds one call of the handler.")
    retries: int = Field(default=3, ge=0, description="Retries after transient handler failures.")
    batch: int = Field(default=64, ge=1, description="Most tasks in one call.")
    batched: bool = Field(default=False, description="Whether the author wrote a batched twin.")
    slots: int = Field(default=1, ge=1, description="Calls this runner does at the same time.")
    result_bytes: int = Field(default=1024 * 1024, ge=1)


class Example(BaseModel):
    """A call of the author's doctest that was shown to work."""

    payload: Any
    result: Any = None


class AlgorithmDescription(BaseModel):
    """One algorithm as a runner offers it."""

    name: AlgorithmName
    input_schema: dict[str, Any] | None = Field(default=None, description="JSON Schema (2020-12) of the payload.")
    output_schema: dict[str, Any] | None = None
    summary: str = ""
    description: str = ""
    example: Example | None = None
    limits: Limits = Limits()


class PlainRegistration(BaseModel):
    """The original pattern's registration: ``POST /algorithms``."""

    algorithm: AlgorithmName
    host: HostUrl


class RunnerRegistration(BaseModel):
    """``PUT /runners/{id}``, sent at start and again to renew the lease."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=100)
    host: HostUrl
    boot: str = Field(min_length=1, max_length=64)
    level: RunnerLevel = RunnerLevel.FULL
    algorithms: list[AlgorithmDescription] = Field(max_length=500)


class RunnerView(BaseModel):
    """A live runner, in the catalogue."""

    id: str
    name: str
    host: str
    boot: str
    level: RunnerLevel
    algorithms: list[str]


class AlgorithmView(BaseModel):
    """An algorithm that was registered once; `runners` is empty while nobody offers it."""

    description: AlgorithmDescription
    schema_digest: str
    runners: list[str] = Field(default_factory=list, description="Ids of live runners with the current schema.")
    outdated: list[str] = Field(default_factory=list, description="Live runners with another schema: no new work.")


class Catalogue(BaseModel):
    """``GET /catalogue``. `index` grows with every change; another `epoch` means discovery started anew."""

    epoch: str
    index: int
    uptime_seconds: float
    lease_seconds: float
    runners: dict[str, RunnerView]
    algorithms: dict[str, AlgorithmView]
    left: dict[str, str] = Field(
        default_factory=dict,
        description="Runner → boot id of the process that left in order last: what it had not ended costs no attempt.",
    )


def schema_digest(description: AlgorithmDescription) -> str:
    """Two runners with the same digest can do each other's tasks."""
    shape = {"input": description.input_schema, "output": description.output_schema}
    return hashlib.sha256(canonical(shape)).hexdigest()
