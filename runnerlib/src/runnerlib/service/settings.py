"""Settings from environment variables: upper-case names without a prefix, checked once, frozen."""

import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from runnerlib.contract.identity import RunnerKeys

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat = Literal["auto", "json", "pretty"]
S = TypeVar("S", bound=BaseSettings)

#: A value under such a name is never shown in a message.
_SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "KEY", "URL")


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class FromFile:
    """Marks a secret setting ``NAME``: its value can be in a file that ``NAME_FILE`` names."""


FILE_SUFFIX = "_FILE"
_TOKEN = re.compile(r"[\x21-\x7e]{32,256}")


def _usable_token(value: SecretStr) -> SecretStr:
    if value and _TOKEN.fullmatch(value.get_secret_value()) is None:
        raise ValueError("it must be 32 to 256 printable ASCII characters without spaces")
    return value


#: 32 to 256 printable ASCII characters; empty: there is none.
SecretToken = Annotated[SecretStr, AfterValidator(_usable_token), FromFile()]


class SecretFiles(PydanticBaseSettingsSource):
    """Reads the secret settings that are in files. Raises SettingsError, which never shows what is in one."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        for name in variables_of(field_name, field):
            path = os.environ.get(name + FILE_SUFFIX)
            if not path:
                continue
            if os.environ.get(name):
                raise SettingsError(f"{name} and {name}{FILE_SUFFIX} are both set; unset one of them.")
            return _content(name + FILE_SUFFIX, path), field_name, False
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        marked = {name: info for name, info in self.settings_cls.model_fields.items() if has_file(info)}
        values = {name: self.get_field_value(info, name)[0] for name, info in marked.items()}
        return {name: value for name, value in values.items() if value is not None}


def has_file(info: FieldInfo) -> bool:
    return any(isinstance(each, FromFile) for each in info.metadata)


def _content(variable: str, path: str) -> str:
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            f"{variable} names a file that cannot be read; check its name, its owner and its mode."
        ) from None
    if not content:
        raise SettingsError(f"{variable} names an empty file; write its value into it.")
    return content


class SecretSettings(BaseSettings):
    """Settings some of which are secret, and can be in files."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls)


class ServiceSettings(SecretSettings):
    """What every service lets its operator choose."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: str = Field(
        default="",
        description="Names by which others reach this service, with commas; loopback names always work. Without any, a "
        "service that listens on 127.0.0.1 answers to nothing else, and one that listens beyond it to every name.",
    )
    auth: Annotated[Literal["", "none", "tokens"], BeforeValidator(_lower)] = Field(
        default="",
        description="`none`: this service may listen beyond 127.0.0.1 although it asks for no token. `tokens`: it does "
        "not start without them. Without it, tokens are in use where there are any.",
    )
    metrics_token: SecretToken = Field(
        default=SecretStr(""),
        description="A token for `/metrics` alone, where tokens are in use: 32 to 256 printable ASCII characters.",
    )
    tls_certificate_file: Path | None = Field(
        default=None,
        description="With it and TLS_KEY_FILE this service speaks HTTPS, and nothing else: a PEM file with its own "
        "certificate, then those of the authorities between. A renewed file is taken within seconds.",
    )
    tls_key_file: Path | None = Field(
        default=None, description="PEM file with the key of that certificate, without a passphrase."
    )
    ca_certificates_file: Path | None = Field(
        default=None,
        description="PEM file with authorities that are trusted besides the system's, where this service calls others "
        "by HTTPS.",
    )
    max_connections: int = Field(
        default=0,
        ge=0,
        description="Most open connections; 0: half of the files that the process may open, at most 4096.",
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

    @property
    def has_tokens(self) -> bool:
        """Whether this service knows by which tokens to let callers in."""
        return False

    #: What gives it tokens, in words for its operator.
    protected_by: ClassVar[str] = ""

    @property
    def unprotected(self) -> str | None:
        """Why it must not listen where it should, in words; None when it may."""
        if self.has_tokens:
            return None
        if self.auth == "tokens":
            return f"AUTH=tokens, and there are none: set {self.protected_by}"
        if self.auth == "none" or is_loopback(self.host):
            return None
        return (
            f"without tokens it must not listen on {self.host}, where others reach it: set {self.protected_by}, "
            "or AUTH=none if everybody who reaches it may do everything (docs/security.md)"
        )


def _usable_keys(value: SecretStr) -> SecretStr:
    if value:
        RunnerKeys.read(value.get_secret_value())
    return value


class KeySettings(ServiceSettings):
    """Of a service that knows the others by the environment's keys."""

    runner_keys: Annotated[SecretStr, AfterValidator(_usable_keys), FromFile()] = Field(
        default=SecretStr(""),
        description="Keys of the environment, at least 32 random characters each, with commas: the first makes the "
        "tokens of runners and services, all recognise them. The same for discovery, controllers and gateways.",
    )

    @property
    def keys(self) -> RunnerKeys | None:
        text = self.runner_keys.get_secret_value()
        return RunnerKeys.read(text) if text else None

    @property
    def service_token(self) -> str:
        """What this service shows others; empty: nothing."""
        return "" if self.keys is None else self.keys.service_token()

    @property
    def has_tokens(self) -> bool:
        return bool(self.runner_keys)

    protected_by: ClassVar[str] = "RUNNER_KEYS_FILE"


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


def forget_secrets(cls: type[BaseSettings]) -> None:
    """Takes the secrets that were read out of this process's environment: what it starts inherits them otherwise."""
    for field, info in cls.model_fields.items():
        secret = set(variables_of(field, info)) if has_file(info) else set()
        for name in [name for name in os.environ if name.upper() in secret]:
            del os.environ[name]


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
            files = [name + FILE_SUFFIX for name in names] if has_file(info) else []
            variable = next((name for name in (*names, *files) if name in os.environ), names[0])
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "missing":
        return f"{variable} is not set; set this environment variable."
    shown = "" if any(word in variable.upper() for word in _SECRET_WORDS) else f" {str(entry['input'])[:80]!r}"
    return f"{variable} has a value{shown} that cannot be used: {message[:1].lower()}{message[1:]}."


def is_loopback(name: str) -> bool:
    """Whether a host name or an address, without a port, is always this machine."""
    name = name.lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
