"""Registration: what a runner sends to discovery, and the catalogue that discovery serves."""

import hashlib
import re
from collections.abc import Iterable
from enum import Enum
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runnerlib.contract import strict_json
from runnerlib.contract.names import ALGORITHM_PATTERN
from runnerlib.contract.strict_json import StrictJsonError, canonical

# Bounds of what can be registered. Readers of a catalogue must not rely on them: another registry may know none.
MAX_SLOTS = 1024
MAX_BATCH = 4096
MAX_RETRIES = 100
MAX_TIMEOUT_SECONDS = 7 * 86_400.0
MAX_RESULT_BYTES = 16 * 1024 * 1024
MAX_TASKS = 1_000_000_000
MAX_RATE = 1_000_000.0
MAX_SCHEMA_BYTES = 64 * 1024
MAX_EXAMPLE_BYTES = 64 * 1024
MAX_SUMMARY_BYTES = 4 * 1024
MAX_DESCRIPTION_BYTES = 64 * 1024
#: Of all descriptions in one registration.
MAX_DESCRIPTIONS_BYTES = 960 * 1024
MAX_ALGORITHMS_OF_RUNNER = 500
#: Limit → the most that can be registered.
MAX_LIMITS: dict[str, float] = {
    "timeout_seconds": MAX_TIMEOUT_SECONDS,
    "retries": MAX_RETRIES,
    "batch": MAX_BATCH,
    "slots": MAX_SLOTS,
    "result_bytes": MAX_RESULT_BYTES,
    "most_waiting": MAX_TASKS,
    "most_running": MAX_TASKS,
    "group_slots": MAX_TASKS,
    "rate_per_second": MAX_RATE,
}
#: A registration nests a description two levels deep.
_MAX_DEPTH = strict_json.MAX_DEPTH - 2
#: Control characters and those that change the direction of text; tabs and line ends are harmless.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
#: A DNS name, whose labels are neither empty nor longer than 63 characters, or an address; and a port.
_HOST = re.compile(
    r"(?:(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?",
)
#: Ids of plain registrations begin with it; no runner that registers itself can have such an id or name.
PLAIN_PREFIX = "plain:"


def _base_url(host: str) -> str:
    """``name:port`` and ``http://name:port/`` both become ``http://name:port``."""
    text = host.strip()
    if "://" not in text:
        text = f"http://{text}"
    scheme, _, rest = text.partition("://")
    rest = rest.rstrip("/")
    if scheme not in ("http", "https") or not _HOST.fullmatch(rest) or not _is_possible(rest):
        raise ValueError(f"host {host[:80]!r} must look like name:port or http://name:port")
    return f"{scheme}://{rest}"


def _is_possible(host: str) -> bool:
    """Whether its port is one, and an address in brackets is one."""
    try:
        found = urlsplit(f"//{host}")
        return (found.port or 0) >= 0 and (not host.startswith("[") or ip_address(str(found.hostname)).version == 6)
    except ValueError:
        return False


def _runner_name(name: str) -> str:
    if not name.isprintable() or name != name.strip() or name.startswith(PLAIN_PREFIX):
        raise ValueError(
            "a runner's name must be printable, without spaces at its ends, and must not begin with 'plain:'"
        )
    return name


AlgorithmName = Annotated[str, Field(pattern=f"^{ALGORITHM_PATTERN}$")]
RunnerName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_runner_name)]
#: Base URL of a runner, without a trailing slash.
HostUrl = Annotated[str, Field(max_length=300), AfterValidator(_base_url)]


class RunnerLevel(str, Enum):
    """``plain``: only ``POST /run/{algorithm}``. ``full``: the whole contract."""

    PLAIN = "plain"
    FULL = "full"


class Limits(BaseModel):
    """An algorithm's limits, as its author set them in ``OPTIONS``. Larger ones than MAX_LIMITS are not registered."""

    timeout_seconds: float = Field(default=300, gt=0, description="Bounds one call of the handler; at most 7 days.")
    retries: int = Field(default=3, ge=0, description="Retries after transient handler failures; at most 100.")
    batch: int = Field(default=64, ge=1, description="Most tasks in one call; at most 4096.")
    batched: bool = Field(default=False, description="Whether the author wrote a batch handler.")
    slots: int = Field(default=1, ge=1, description="Calls this runner does at the same time; at most 1024.")
    result_bytes: int = Field(default=1024 * 1024, ge=1, description="Bytes of a result; at most 16 MiB.")
    most_waiting: int | None = Field(default=None, ge=1, description="Tasks that may wait; null: any number.")
    most_running: int | None = Field(
        default=None, ge=1, description="Tasks that may run at the same time, over all runners; null: as many as can."
    )
    group_slots: int | None = Field(
        default=None, ge=1, description="Tasks of one group that may run at the same time; null: as many as can."
    )
    rate_per_second: float | None = Field(
        default=None, gt=0, description="Tasks that may start in a second, over all runners; null: as many as can."
    )

    def bounded(self) -> "Limits":
        """The same, cut to MAX_LIMITS: another registry may not have checked them."""
        beyond = {name: most for name, most in MAX_LIMITS.items() if (getattr(self, name) or 0) > most}
        return self.model_copy(update=beyond) if beyond else self


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

    name: RunnerName = Field(description="Runners of the same name are replicas of one another.")
    host: HostUrl
    boot: str = Field(min_length=1, max_length=64)
    level: RunnerLevel = RunnerLevel.FULL
    algorithms: list[AlgorithmDescription] = Field(max_length=MAX_ALGORITHMS_OF_RUNNER)
    keeps: list[AlgorithmName] = Field(
        default_factory=list,
        max_length=MAX_ALGORITHMS_OF_RUNNER,
        description="Further algorithms that this runner has but cannot run now: they get no tasks and stay its own.",
    )


class Registered(BaseModel):
    """The answer to a registration: renew it three times within `lease_seconds`."""

    epoch: str = Field(description="Changes when the registry is started anew.")
    index: int = Field(description="Number of the catalogue's last change.")
    lease_seconds: float
    clashes: dict[str, str] = Field(
        default_factory=dict,
        description="Algorithm → the name of the runner that owns it: this runner gets no tasks of it.",
    )


class RunnerView(BaseModel):
    """A live runner, in the catalogue."""

    id: str
    name: str
    host: str
    boot: str
    level: RunnerLevel
    algorithms: list[str]
    address: str = Field(default="", description="The only address that `host` may stand for; empty: any.")
    key_id: str = Field(default="", description="Which of the environment's keys its token was made with.")


class AlgorithmView(BaseModel):
    """An algorithm that was registered once; `runners` is empty while nobody offers it."""

    description: AlgorithmDescription
    schema_digest: str
    runners: list[str] = Field(default_factory=list, description="Ids of live runners with the current schema.")
    outdated: list[str] = Field(default_factory=list, description="Live runners with another schema: no new work.")
    owner: str | None = Field(default=None, description="Name of the runner that it belongs to.")
    clashing: list[str] = Field(
        default_factory=list, description="Live runners of another name than the owner's: no work of it."
    )


class Catalogue(BaseModel):
    """``GET /catalogue``. `index` grows with every change; another `epoch` means discovery started anew.

    With `since` it holds only what changed after that index, and names what is gone; `more` says that it stops at
    `index` before the last change, and that the next answer goes on from there.
    """

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
    since: int | None = None
    gone_runners: list[str] = Field(default_factory=list)
    gone_algorithms: list[str] = Field(default_factory=list)
    more: bool = False


def schema_digest(description: AlgorithmDescription) -> str:
    """Two runners with the same digest can do each other's tasks."""
    shape = {"input": description.input_schema, "output": description.output_schema}
    return hashlib.sha256(canonical(shape)).hexdigest()


def unregistrable(descriptions: Iterable[AlgorithmDescription], *, together: bool = True) -> dict[str, str]:
    """Algorithm → why discovery does not accept it, as a sentence for its author; empty when all can be registered.

    Used by ``check``, by runners before they register, and by discovery, so that all accept the same. `together`: the
    descriptions are of one runner.
    """
    refused: dict[str, str] = {}
    count, size = 0, 0
    for description in descriptions:
        reason = _beyond_limits(description) or _unsendable(description)
        if reason is None:
            whole = size + len(description.model_dump_json().encode())
            if not together:
                continue
            if count == MAX_ALGORITHMS_OF_RUNNER:
                reason = f"one runner can register {MAX_ALGORITHMS_OF_RUNNER} algorithms; move some to another runner"
            elif whole > MAX_DESCRIPTIONS_BYTES:
                reason = (
                    f"with it the descriptions of this runner have {whole} bytes, at most {MAX_DESCRIPTIONS_BYTES} "
                    "can be registered; shorten schemas and docstrings, or move some algorithms to another runner"
                )
            else:
                count, size = count + 1, whole
        if reason is not None:
            refused[description.name] = reason
    return refused


def clash_sentence(algorithm: str, owner: str, name: str) -> str:
    """The message for the author of runner `name`, one of whose algorithms belongs to another runner."""
    return (
        f"{algorithm!r} belongs to runner {owner!r}, which registered it first: {name!r} gets no tasks of it; "
        f"rename one of the two functions, or decide for this runner: worker take-over {algorithm} {name}"
    )


def _beyond_limits(description: AlgorithmDescription) -> str | None:
    for name, most in MAX_LIMITS.items():
        if (getattr(description.limits, name) or 0) > most:
            return f"its option {name!r} is {getattr(description.limits, name):g}, at most {most:g} can be registered"
    return None


#: Part of a description → the most bytes of it as JSON, its words, and what its author can do.
_PARTS = {
    "input_schema": (
        MAX_SCHEMA_BYTES,
        "the schema of its parameters",
        "take a str where there are many allowed values, and check it in the function",
    ),
    "output_schema": (MAX_SCHEMA_BYTES, "the schema of its result", "give a wider return hint, e.g. str or dict"),
    "summary": (MAX_SUMMARY_BYTES, "the first line of its docstring", "shorten it"),
    "description": (MAX_DESCRIPTION_BYTES, "its docstring", "shorten it"),
    "example": (MAX_EXAMPLE_BYTES, "the example in its docstring", "choose a smaller one"),
}


def _unsendable(description: AlgorithmDescription) -> str | None:
    """Checks the bytes that would be sent, part by part."""
    for text, words in ((description.summary, "summary"), (description.description, "description")):
        found = _CONTROL.search(text)
        if found is not None:
            place = f"character {found.start() + 1}, U+{ord(found.group()):04X}"
            return f"{_PARTS[words][1]} has a control character ({place}); take it out"
    for part, (most, words, advice) in _PARTS.items():
        try:
            data = description.model_dump_json(include={part}).encode()
            strict_json.loads(data, max_depth=_MAX_DEPTH)
        except StrictJsonError as error:
            return f"{words} cannot be sent: {error}"
        except ValueError as error:  # how pydantic reports a lone surrogate
            return f"{words} cannot be sent as UTF-8 text; take out what is no character ({str(error)[:120]})"
        if len(data) > most:
            return f"{words} has {len(data)} bytes, at most {most} can be registered; {advice}"
    return None
