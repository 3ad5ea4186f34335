"""One Compose project of the tests' own: its containers, their addresses, and what can be done to them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from environments import until

from containers.docker_cli import CommandFailed, called, docker, inspected

COMPOSE_FILE = "docker-compose.yml"
#: How long what runs may go on after a stop was asked for.
GRACE_SECONDS = 10
_LABEL = "com.docker.compose.project"
#: All of it on two cores, and the image runner loads its model twice.
UP_SECONDS = 300.0


@dataclass(frozen=True)
class Container:
    """As it was when it was looked at."""

    id: str
    service: str
    state: dict[str, Any]
    details: dict[str, Any]

    @property
    def started_at(self) -> str:
        return str(self.state["StartedAt"])

    @property
    def is_healthy(self) -> bool:
        return bool(self.state["Running"]) and self.state.get("Health", {}).get("Status") == "healthy"


@dataclass
class Project:
    """`folder`: a copy of the repository. `settings`: variables for Compose, on top of those of this process."""

    name: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        return {**os.environ, **self.settings, "COMPOSE_PROJECT_NAME": self.name}

    def compose(self, *words: str, files: Sequence[str] = (COMPOSE_FILE,), within_seconds: float = 60.0) -> str:
        """`files`: relative to the folder."""
        named = [word for file in files for word in ("-f", file)]
        return called(
            ("docker", "compose", *named, *words),
            folder=self.folder,
            settings=self.variables,
            within_seconds=within_seconds,
        )

    def up(self, *more: str, files: Sequence[str] = (COMPOSE_FILE,)) -> None:
        """Until all are healthy."""
        words = ("up", "--detach", "--wait", "--wait-timeout", f"{UP_SECONDS:.0f}", *more)
        self.compose(*words, files=files, within_seconds=UP_SECONDS + 60)

    def is_up(self) -> bool:
        """Whether each service runs once, healthy, and nothing else does."""
        running = self.containers()
        return all(each.is_healthy for each in running) and sorted(each.service for each in running) == self._services

    @cached_property
    def _services(self) -> list[str]:
        return sorted(self.configuration()["services"])

    def down(self, *more: str) -> None:
        """With its volumes."""
        self.compose("down", "--volumes", "--remove-orphans", *more, within_seconds=180)

    def containers(self, service: str = "", *, all_of_them: bool = False) -> list[Container]:
        """Those that run, of one service or all; `all_of_them`: also those that have ended."""
        words = ["ps", "--quiet", "--no-trunc", "--filter", f"label={_LABEL}={self.name}"]
        words += ["--filter", f"label=com.docker.compose.service={service}"] if service else []
        words += ["--all"] if all_of_them else []
        found = inspected(*docker(*words).split())
        return [
            Container(each["Id"], each["Config"]["Labels"]["com.docker.compose.service"], each["State"], each)
            for each in found
        ]

    def container(self, service: str) -> Container:
        """The only one of a service."""
        (found,) = self.containers(service)
        return found

    def left_over(self) -> dict[str, list[str]]:
        """What the engine still has of this project."""
        kinds = {"container": ("ps", "--all"), "network": ("network", "ls"), "volume": ("volume", "ls")}
        return {
            kind: docker(*words, "--quiet", "--filter", f"label={_LABEL}={self.name}").split()
            for kind, words in kinds.items()
        }

    def url(self, service: str, port: int, *, index: int = 1) -> str:
        """Where a container's port is reached from here."""
        address = self.compose("port", "--index", str(index), service, str(port)).strip()
        return f"http://{address}"

    def inner_url(self, service: str, port: int) -> str:
        """Of the only container of a service, where the other containers reach it."""
        networks = self.container(service).details["NetworkSettings"]["Networks"]
        return f"http://{next(iter(networks.values()))['IPAddress']}:{port}"

    def run_in(self, service: str, *command: str, within_seconds: float = 60.0) -> str:
        """Runs a command inside a container, as its own user."""
        return self.compose("exec", "--no-TTY", service, *command, within_seconds=within_seconds)

    def wait_healthy(self, *services: str, within_seconds: float = 120.0) -> None:
        def healthy() -> bool:
            return all(all(each.is_healthy for each in self.containers(name) or [_GONE]) for name in services)

        until(healthy, f"{', '.join(services)} healthy", within_seconds)

    def configuration(self) -> dict[str, Any]:
        """The Compose file, as Compose has understood it."""
        return dict(json.loads(self.compose("config", "--format", "json")))

    def logs(self) -> str:
        """The last lines of each container."""
        try:
            return self.compose("logs", "--no-color", "--tail", "60", within_seconds=60)
        except CommandFailed as error:
            return str(error)


_GONE = Container("", "", {"Running": False}, {})
