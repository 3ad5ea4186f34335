"""What an operator of the gateway can choose."""

from typing import ClassVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from runnerlib.service.settings import SecretToken
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
    admin_token: SecretToken = Field(
        default=SecretStr(""),
        description="A token with the scope `admin`, to make others with: 32 to 256 printable ASCII characters.",
    )

    @field_validator("admin_token")
    @classmethod
    def _consistent(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if value and info.data.get("auth") == "none":
            raise ValueError("by AUTH=none calls need no token; unset one of the two")
        return value

    @property
    def has_tokens(self) -> bool:
        """Whether calls need a token. With AUTH=tokens alone, those that were made before are valid."""
        return self.auth == "tokens" or bool(self.admin_token)

    protected_by: ClassVar[str] = "ADMIN_TOKEN_FILE"
