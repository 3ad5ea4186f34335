"""What an operator of the gateway can choose."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from producer.gateway.proxies import checked_root_path, read_proxies
from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from runnerlib.service.addresses import Network
from runnerlib.service.settings import SecretToken
from taskqueue.settings import QueueServiceSettings


def _checked_proxies(text: str) -> str:
    read_proxies(text)
    return text


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

    root_path: Annotated[str, AfterValidator(checked_root_path)] = Field(
        default="", description="The path under which a reverse proxy has the gateway, such as /plugplay."
    )
    trusted_proxies: Annotated[str, AfterValidator(_checked_proxies)] = Field(
        default="",
        description="Addresses and networks of reverse proxies, with commas: what they say in `X-Forwarded-For` and "
        "`X-Forwarded-Proto` is believed.",
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

    @property
    def proxies(self) -> list[Network]:
        return read_proxies(self.trusted_proxies)

    @property
    def unprotected(self) -> str | None:
        """Others reach it through a proxy, too."""
        if not self.has_tokens and self.auth != "none" and (self.root_path or self.trusted_proxies):
            return (
                "without tokens it must not be behind a proxy, through which others reach it: set "
                f"{self.protected_by}, or AUTH=none if everybody who reaches it may do everything (docs/security.md)"
            )
        return super().unprotected
