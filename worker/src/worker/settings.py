"""Settings of ``worker``, from environment variables; the command line's options win over them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from runnerlib.service.settings import FromFile, LogFormat, LogLevel, SecretSettings, load_settings

#: Variables that would make a child use the worker's own Python set-up instead of its own.
_PYTHON_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
GATEWAY_SECRETS = ("ADMIN_TOKEN", "ADMIN_TOKEN_FILE")
KEY_SECRETS = ("RUNNER_KEYS", "RUNNER_KEYS_FILE")
METRICS_SECRETS = ("METRICS_TOKEN", "METRICS_TOKEN_FILE")
#: What `worker` starts, it asks at 127.0.0.1, by HTTP.
_TLS = ("TLS_CERTIFICATE_FILE", "TLS_KEY_FILE")
_OTHER_TOKENS = ("PRODUCER_TOKEN", "PRODUCER_TOKEN_FILE", "RUNNER_TOKEN", "RUNNER_TOKEN_FILE")
#: Where the broker and the database are, passwords included; only controller and gateway get them.
_SERVERS = re.compile(r"QUEUE_URL(_FILE)?|DATABASE_URL(_FILE)?|RABBITMQ_.*|PG[A-Z]+")
#: Of names that hold secrets of whoever started us. Those of tokenizers' settings do not.
_SECRET = re.compile(r"(?!OPTION_|TOKENIZERS_).*(PASSW(OR)?D|SECRET|TOKEN).*")


class WorkerSettings(SecretSettings):
    """Where things are and on which ports they listen."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    runners_folder: Path = Field(default=Path("runners"), description="Folder that holds one folder for each runner.")
    data_folder: Path = Field(
        default=Path(".plugplay"), description="Where the environment keeps its database and its virtual environments."
    )
    host: str = Field(default="127.0.0.1", description="Address that every process of the environment binds to.")
    auth: Annotated[Literal["", "none", "tokens"], BeforeValidator(str.lower)] = Field(
        default="",
        description="`tokens`: keys and an admin token are made in the data folder, and everything asks for tokens; so "
        "it is, too, where HOST is an address that others reach, unless this is `none`.",
    )
    gateway_port: int = Field(default=8000, ge=1, le=65535, description="Port of the gateway.")
    discovery_port: int = Field(default=8010, ge=1, le=65535, description="Port of discovery.")
    controller_port: int = Field(
        default=8020, ge=1, le=65535, description="Port of the controller, when it is a process of its own."
    )
    runner_ports_start: int = Field(
        default=8101,
        ge=1,
        le=65535,
        description="Port of the first runner; the others follow in order of their names, then what is started later.",
    )
    scale: str = Field(
        default="", description="Processes of each runner, `nlp=2,text=3`; 1 for those not named, 0 starts none."
    )
    reload: bool = Field(
        default=True, description="Whether runners are started anew when their files change, and new ones join."
    )
    queue_url: Annotated[str, FromFile()] = Field(
        default="", description="The broker, `amqp://USER:PASSWORD@HOST/VHOST`; empty: the queue is in the SQLite file."
    )
    rabbitmq_host: str = Field(default="", description="Host of the broker, without QUEUE_URL; the user is guest.")
    queue_name: str = Field(default="", description="Nothing but `tasks`, should it be set at all.")
    database_url: Annotated[str, FromFile()] = Field(
        default="", description="The store, `postgresql://USER:PASSWORD@HOST/DATABASE`; empty: a SQLite file."
    )
    log_level: Annotated[LogLevel, BeforeValidator(str.upper)] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    log_format: Annotated[LogFormat, BeforeValidator(str.lower)] = Field(
        default="auto", description="`json`, `pretty`, or `auto`: pretty on a terminal, else json."
    )
    grace_seconds: float = Field(default=10, gt=0, description="How long each process may take to stop by itself.")
    start_seconds: float = Field(default=60, gt=0, description="How long discovery and the core may take to start.")
    load_seconds: float = Field(
        default=300, gt=0, description="How long the demo waits for all runners to have loaded and registered."
    )


def read_settings(
    runners_folder: Path | None = None,
    data_folder: Path | None = None,
    scale: Sequence[str] | None = None,
    reload: bool | None = None,
    queue_url: str | None = None,
    database_url: str | None = None,
) -> WorkerSettings:
    """From the environment; what is given here wins. Exits with a sentence for a bad variable.

    `scale` wins for the runners that it names; for others SCALE goes on to count.
    """
    options = {name: value for name, value in locals().items() if value is not None}
    loaded = load_settings(WorkerSettings)
    return loaded.model_copy(update={**options, "scale": ",".join([loaded.scale, *(scale or ())])})


def inherited_environment() -> dict[str, str]:
    """What our services inherit: everything but the worker's own Python set-up, tokens, keys and certificates."""
    kept_back = {*_PYTHON_VARIABLES, *_TLS, *GATEWAY_SECRETS, *KEY_SECRETS, *METRICS_SECRETS, *_OTHER_TOKENS}
    return {name: value for name, value in os.environ.items() if name.upper() not in kept_back}


def without_servers(environment: Mapping[str, str]) -> dict[str, str]:
    """What installing a runner's packages inherits of that, an index's password included."""
    return {name: value for name, value in environment.items() if not _SERVERS.fullmatch(name.upper())}


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What runners inherit of that: a secret that one needs stands in its own `.env`."""
    found = without_servers(environment)
    return {name: value for name, value in found.items() if not _SECRET.fullmatch(name.upper())}
