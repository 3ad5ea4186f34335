"""What an operator of the gateway can choose."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from taskqueue.settings import QueueServiceSettings

_TOKEN = re.compile(r"[\x21-\x7e]{32,256}")


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _content(value: object) -> object:
    """Of the file that a variable names."""
    if not isinstance(value, str | Path):
        return value
    try:
        content = Path(value).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError("the file cannot be read; check its name, its owner and its mode") from None
    if not content:
        raise ValueError("the file is empty; write a token into it")
    return content


#: A setting whose variable names a file; its value is what the file contains.
SecretFile = Annotated[SecretStr, BeforeValidator(_content)]


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
    admin_token: SecretStr = Field(
        default=SecretStr(""),
        description="A token with the scope `admin`, to make others with: 32 to 256 printable ASCII characters.",
    )
    admin_token_file: SecretFile = Field(default=SecretStr(""), description="A file with it.")
    metrics_token: SecretStr = Field(
        default=SecretStr(""), description="A token for `/metrics` alone, where tokens are in use; characters as above."
    )
    metrics_token_file: SecretFile = Field(default=SecretStr(""), description="A file with it.")
    auth: Annotated[Literal["", "none", "tokens"], BeforeValidator(_lower)] = Field(
        default="",
        description="`tokens`: calls need one; `none`: they don't. Without it they do if there is an `ADMIN_TOKEN`.",
    )

    @field_validator("admin_token", "admin_token_file", "metrics_token", "metrics_token_file")
    @classmethod
    def _usable(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if value:
            if _TOKEN.fullmatch(value.get_secret_value()) is None:
                raise ValueError("it must be 32 to 256 printable ASCII characters without spaces")
            other = str(info.field_name).removesuffix("_file")
            if other != info.field_name and info.data.get(other):
                raise ValueError(f"{other.upper()} is set, too; unset one of them")
        return value

    @field_validator("auth")
    @classmethod
    def _consistent(cls, value: str, info: ValidationInfo) -> str:
        if value == "none" and (info.data.get("admin_token") or info.data.get("admin_token_file")):
            raise ValueError("there is an ADMIN_TOKEN, too; unset one of them")
        return value

    @property
    def needs_tokens(self) -> bool:
        """Whether calls need a token."""
        return self.auth == "tokens" or (self.auth == "" and bool(self.admin_secret))

    @property
    def admin_secret(self) -> str:
        """Empty: there is none."""
        return (self.admin_token_file or self.admin_token).get_secret_value()

    @property
    def metrics_secret(self) -> str:
        """Empty: there is none."""
        return (self.metrics_token_file or self.metrics_token).get_secret_value()
