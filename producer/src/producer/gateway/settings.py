"""What an operator of the gateway can choose."""

from pydantic import Field

from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from taskqueue.settings import QueueServiceSettings


class GatewaySettings(QueueServiceSettings):
    """Environment variables of the gateway."""

    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_message_bytes: int = Field(
        default=DEFAULT_MESSAGE_BYTES,
        ge=1024,
        le=MAX_MESSAGE_BYTES,
        description="Largest message that is taken; larger data is passed by reference.",
    )
    unknown_algorithm_grace_seconds: float = Field(
        default=600,
        ge=0,
        description="How long a task waits for an algorithm that nobody has registered, as controllers have it.",
    )
