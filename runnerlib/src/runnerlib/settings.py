"""What the operator of a runner can choose, by environment variables."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr

from runnerlib.adapter.options import OVERRIDE_PREFIX
from runnerlib.fetching.addresses import MEBIBYTE, FetchRules, read_networks, read_ports
from runnerlib.service.settings import FromFile, ServiceSettings, is_loopback


def _checked_networks(text: str) -> str:
    read_networks(text)
    return text


def _checked_ports(text: str) -> str:
    read_ports(text)
    return text


_TOKEN = re.compile(r"ppr_[A-Za-z0-9%._~-]{1,900}\.[A-Za-z0-9_-]{43}")


def _stripped(value: object) -> object:
    """Variables from elsewhere often end with a line end."""
    return value.strip() if isinstance(value, str) else value


def _checked_token(value: SecretStr) -> SecretStr:
    if value and _TOKEN.fullmatch(value.get_secret_value()) is None:
        raise ValueError("it is no runner's token, which looks like ppr_NAME.…")
    return value


class RunnerSettings(ServiceSettings):
    """Settings of ``python -m runnerlib``. ``OPTION_<ALGORITHM>_<KEY>`` come on top: see :func:`option_overrides`."""

    name: str = Field(
        default="",
        max_length=100,
        validation_alias=AliasChoices("RUNNER_NAME", "CONTAINER_NAME", "NAME"),
        description="Name of this runner; without one, the name of the adapter's folder.",
    )
    port: int = Field(default=8100, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    runner_adapter: Path = Field(default=Path("runner_adapter.py"), description="The adapter's file, or its folder.")
    runner_token: Annotated[SecretStr, BeforeValidator(_stripped), AfterValidator(_checked_token), FromFile()] = Field(
        default=SecretStr(""),
        description="The token with this runner's name: `python -m runner_discovery token NAME` prints it. With one, "
        "the runner takes runs from the controllers of its environment alone.",
    )
    discovery_url: str = Field(default="", description="Where to register; empty: nowhere.")
    runner_discovery_container_name: str = Field(default="", description="Host of discovery, without DISCOVERY_URL.")
    runner_discovery_port: int = Field(
        default=8010, ge=1, le=65535, description="Port of discovery, without DISCOVERY_URL."
    )
    container_name: str = Field(default="", description="Host to register when listening on every interface.")
    advertise_host: str = Field(
        default="", max_length=250, description="Address to register, host or host:port; default: where it listens."
    )
    cancel_grace_seconds: float = Field(
        default=5, ge=0, le=3600, description="Time for a handler to notice a cancel before its process is killed."
    )
    device: str = Field(
        default="auto",
        description="What handlers get as `device`; auto: `cuda` when the runner's torch can use a GPU, else `cpu`.",
    )
    fetch_allow_private: Annotated[str, AfterValidator(_checked_networks)] = Field(
        default="",
        description="Networks that `fetch` may connect to although they are not public, at any port, "
        "e.g. `127.0.0.0/8,10.1.0.0/16`.",
    )
    fetch_ports: Annotated[str, AfterValidator(_checked_ports)] = Field(
        default="80,443", description="Ports of public addresses that `fetch` may connect to."
    )
    fetch_max_bytes: int = Field(
        default=20 * MEBIBYTE, ge=1, description="Most bytes of one `fetch`, where the handler does not say."
    )
    fetch_timeout_seconds: float = Field(
        default=15, gt=0, le=3600, description="Time for all of one `fetch`, where the handler does not say."
    )

    @property
    def token(self) -> str:
        """Empty: there is none."""
        return self.runner_token.get_secret_value()

    @property
    def has_tokens(self) -> bool:
        return bool(self.runner_token)

    protected_by: ClassVar[str] = "RUNNER_TOKEN_FILE"

    @property
    def fetch_rules(self) -> FetchRules:
        return FetchRules(self.fetch_allow_private, self.fetch_ports, self.fetch_max_bytes, self.fetch_timeout_seconds)

    @property
    def host_names(self) -> list[str]:
        """With `allowed_hosts`, also the address that it registers. Without, beyond loopback, there is no rule."""
        names, own = super().host_names, urlsplit("//" + self.advertise_host.rpartition("://")[2]).hostname
        return [*names, own] if own and (names or is_loopback(self.host)) else names

    @property
    def discovery(self) -> str:
        """Base URL of discovery; empty when there is none to register at."""
        url = self.discovery_url
        if not url and self.runner_discovery_container_name:
            url = f"{self.runner_discovery_container_name}:{self.runner_discovery_port}"
        if url and "://" not in url:
            url = f"http://{url}"
        return url.rstrip("/")


def option_overrides(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables that override OPTIONS."""
    variables = os.environ if environment is None else environment
    return {name: value for name, value in variables.items() if name.startswith(OVERRIDE_PREFIX)}
