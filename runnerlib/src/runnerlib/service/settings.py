"""Settings from environment variables: upper-case names without a prefix, checked once, frozen."""

import ipaddress
import os
import sys
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat = Literal["auto", "json", "pretty"]
S = TypeVar("S", bound=BaseSettings)

#: A value under such a name is never shown in a message.
_SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "KEY", "URL")


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class ServiceSettings(BaseSettings):
    """What every service lets its operator choose."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: str = Field(
        default="",
        description="Names by which others reach this service, with commas; loopback names always work. Without any, a "
        "service that listens on 127.0.0.1 answers to nothing else, and one that listens beyond it to every name.",
    )
    max_connections: int = Field(
        default=0,
        ge=0,
        description="Most open connections; 0: three quarters of the files that the process may open, at most 4096.",
    )
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(
        default="auto", description="`json`, `pretty`, or `auto`: pretty on a terminal, else json."
    )
    grace_seconds: float = Field(default=10, ge=0, le=86_400, description="Time to finish work after SIGTERM.")
    watchdog_seconds: float = Field(
        default=30,
        ge=0,
        le=86_400,
        description="A process whose event loop stands still for so long logs what it is at and ends with code 70, "
        "so that it is started again; 0: never. When not even a thread of it can run, SIGPROF ends it, after four "
        "times as much CPU time.",
    )
    exit_with_parent: bool = Field(default=False, description="Stop when the process that started this one is gone.")

    @property
    def host_names(self) -> list[str]:
        """`allowed_hosts`, apart."""
        return [name.strip() for name in self.allowed_hosts.split(",") if name.strip()]


def load_settings(cls: type[S]) -> S:
    """Reads the settings of a service. Prints one sentence for each bad variable and exits with 2."""
    try:
        return cls()
    except ValidationError as error:
        sentences = [_sentence(cls, dict(entry)) for entry in error.errors(include_url=False)]
    except SettingsError as error:
        sentences = [str(error)]
    for sentence in sentences:
        print(sentence, file=sys.stderr)
    raise SystemExit(2)


def variables_of(field: str, info: FieldInfo) -> list[str]:
    """The environment variables that set a field; the first is its name."""
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias] if isinstance(alias, str) else [field.upper()]


def _sentence(cls: type[BaseSettings], entry: dict[str, Any]) -> str:
    place = str(entry["loc"][0]) if entry["loc"] else ""
    variable = place.upper()
    for field, info in cls.model_fields.items():
        names = variables_of(field, info)
        if place == field or place.upper() in {name.upper() for name in names}:
            variable = next((name for name in names if name in os.environ), names[0])
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "missing":
        return f"{variable} is not set; set this environment variable."
    shown = "" if any(word in variable.upper() for word in _SECRET_WORDS) else f" {str(entry['input'])[:80]!r}"
    return f"{variable} has a value{shown} that cannot be used: {message[:1].lower()}{message[1:]}."


def is_loopback(name: str) -> bool:
    """Whether a host name or an address, without a port, is always this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
