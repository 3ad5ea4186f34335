"""Settings of the controller, from environment variables."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from taskqueue.settings import QueueServiceSettings

#: Delays before the next attempt, one for each earlier failure; the last one repeats.
DEFAULT_STEPS_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)

Seconds = Annotated[float, Field(ge=0, le=86_400)]


def _numbers(value: object) -> object:
    """``1,5,30`` as well as a JSON list."""
    if isinstance(value, str):
        return value.strip().strip("[]").replace(",", " ").split()
    return value


class ControllerSettings(QueueServiceSettings):
    """What an operator may choose for a controller."""

    port: int = Field(default=8020, ge=0, le=65535, description="Port of health and metrics; 0 takes a free one.")
    retry_steps_seconds: Annotated[
        tuple[Seconds, ...], NoDecode, BeforeValidator(_numbers), Field(min_length=1, max_length=20)
    ] = Field(
        default=DEFAULT_STEPS_SECONDS,
        description="Seconds before the next attempt, one for each failure, with commas; the last one repeats.",
    )
    runner_margin_seconds: float = Field(
        default=15,
        ge=1,
        le=3600,
        description="How much longer than agreed a runner may take: for an answer, for a run that is over its time "
        "limit, for a cancel. Then the controller decides without it.",
    )
    retention_days: float = Field(default=7, gt=0, description="How long finished tasks and their results are kept.")
    audit_retention_days: float = Field(
        default=90, gt=0, description="How long the audit keeps what callers of the gateway have changed."
    )
    max_message_bytes: int = Field(
        default=DEFAULT_MESSAGE_BYTES,
        ge=1024,
        le=MAX_MESSAGE_BYTES,
        description="Largest message that is taken from a broker's ingress queue; larger data is passed by reference.",
    )
    unknown_algorithm_grace_seconds: float = Field(
        default=600, ge=0, description="How long a task waits for an algorithm that nobody has registered."
    )
