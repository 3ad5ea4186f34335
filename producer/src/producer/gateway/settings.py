"""What an operator of the gateway can choose."""

from pydantic import Field

from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from runnerlib.service.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """Environment variables of the gateway."""

    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    discovery_url: str = Field(default="http://127.0.0.1:8010", description="Address of runner-discovery.")
    database_url: str = Field(default="", description="The store; empty or `sqlite:` is the embedded one.")
    max_message_bytes: int = Field(
        default=DEFAULT_MESSAGE_BYTES,
        ge=1024,
        le=MAX_MESSAGE_BYTES,
        description="Largest message that is taken; larger data is passed by reference.",
    )
