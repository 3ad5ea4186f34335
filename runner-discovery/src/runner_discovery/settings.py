"""Settings of the registry."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field

from runner_discovery.host_rule import read_hosts
from runnerlib.service.settings import KeySettings


def _checked_hosts(text: str) -> str:
    read_hosts(text)
    return text


class Settings(KeySettings):
    """Where the registry listens, how long a lease lasts, and where it remembers."""

    port: int = Field(
        default=8010,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("PORT", "RUNNER_DISCOVERY_PORT"),
        description="Port to listen on; 0 takes a free one.",
    )
    lease_seconds: float = Field(
        default=30, ge=1, le=3600, description="A runner that has not renewed for this long is gone."
    )
    retention_days: float = Field(
        default=7, gt=0, description="How long a runner that is away goes on owning its algorithms."
    )
    runner_hosts: Annotated[str, AfterValidator(_checked_hosts)] = Field(
        default="",
        description="Hosts that runners may register although they are not their own, names with wildcards or "
        "networks: `*.workers.example,10.1.0.0/16`. A discovery that listens on 127.0.0.1 takes every host.",
    )
    snapshot_path: Path = Field(
        default=Path(".plugplay/discovery.json"), description="File that keeps what is registered over a restart."
    )
