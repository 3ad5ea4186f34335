"""What an environment consists of: addresses, commands and variables of each process. Pure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from worker.runners import ADAPTER_FILE, RunnerFolder
from worker.settings import WorkerSettings

DISCOVERY = "discovery"
CORE = "core"
CONTROLLER = "controller"
GATEWAY = "gateway"
#: Where the broker and the database are, passwords included; only controller and gateway get them.
_SECRETS = ("QUEUE_URL", "DATABASE_URL", "RABBITMQ_HOST")
#: The variable in which every process carries the data folder of its environment, to be recognised by.
MARK = "PLUGPLAY_ENVIRONMENT"
#: Exit code of `python -m runnerlib` if the adapter has a mistake; only its author can change that.
ADAPTER_MISTAKE = 3
#: Exit code of `python -m runnerlib check` if some algorithms cannot be registered, and the others work.
UNREGISTRABLE = 4
#: After SIGTERM a service takes its grace and a little more before it ends in any case.
_BEYOND_GRACE_SECONDS = 6.0
#: Everything needs the services: the delay before a restart never exceeds this.
_SERVICE_DELAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """What to start, and how to keep it alive."""

    name: str
    command: tuple[str, ...]
    url: str
    environment: dict[str, str]
    folder: Path | None = None
    #: between SIGTERM and SIGKILL
    stop_seconds: float = 12
    #: exit codes after which starting it again would change nothing, and what to say then
    fatal_exit_codes: frozenset[int] = field(default_factory=frozenset)
    advice: str = ""
    #: before it is started again after its first death, and at most after many
    first_delay_seconds: float = 0.5
    most_delay_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class PortUse:
    """A port that a process of ours needs, and the setting that moves it."""

    port: int
    process: str
    setting: str


@dataclass(frozen=True)
class Layout:
    """Where the parts of an environment are, and how to start each."""

    settings: WorkerSettings
    data: Path
    #: the log format of the children; `auto` has been decided by then
    log_format: str
    inherited: dict[str, str]
    #: where the broker is; empty: queue and store are one SQLite file in `data`
    queue_url: str = ""
    #: runner → variables for its processes alone
    runner_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    #: variables with tokens, for the gateway alone
    gateway_tokens: Mapping[str, str] = field(default_factory=dict)

    def url(self, port: int) -> str:
        host = self.settings.host
        reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{reachable}:{port}"

    @property
    def has_broker(self) -> bool:
        """Whether controller and gateway are processes of their own, on RabbitMQ and PostgreSQL."""
        return bool(self.queue_url)

    @property
    def code_folder(self) -> Path:
        """Where the copies of runners' code are that are being run."""
        return self.data / "code"

    @property
    def gateway_url(self) -> str:
        return self.url(self.settings.gateway_port)

    @property
    def discovery_url(self) -> str:
        return self.url(self.settings.discovery_port)

    def runner_port(self, runner: RunnerFolder) -> int:
        return self.settings.runner_ports_start + runner.position

    def ports(self, runners: list[RunnerFolder]) -> list[PortUse]:
        """Every port that must be free."""
        of_runners = [PortUse(self.runner_port(r), f"runner {r.name}", "RUNNER_PORTS_START") for r in runners]
        return self.service_ports() + of_runners

    def service_ports(self) -> list[PortUse]:
        """Ports that no runner may have."""
        own = [
            PortUse(self.settings.discovery_port, DISCOVERY, "DISCOVERY_PORT"),
            PortUse(self.settings.gateway_port, "the gateway", "GATEWAY_PORT"),
        ]
        if self.has_broker:
            own.append(PortUse(self.settings.controller_port, CONTROLLER, "CONTROLLER_PORT"))
        return own

    def discovery(self) -> ProcessPlan:
        variables = {"SNAPSHOT_PATH": str(self.data / "discovery.json")}
        return self._service(DISCOVERY, "runner_discovery", self.settings.discovery_port, variables)

    def services(self) -> list[ProcessPlan]:
        """The services in the order in which they start, and stop.

        The controller starts before the gateway, so that accepted tasks are served. It also stops first, so that
        senders can ask for results to the end; what they send meanwhile is durable and waits.
        """
        settings = self.settings
        if not self.has_broker:
            core = {"DATA_FOLDER": str(self.data), **self.gateway_tokens}
            return [self._service(CORE, "worker.core", settings.gateway_port, core)]
        # As variables, never on a command line: every user of the machine can read that.
        servers = {"QUEUE_URL": self.queue_url, "DATABASE_URL": settings.database_url}
        return [
            self._service(CONTROLLER, "controller", settings.controller_port, servers),
            self._service(GATEWAY, "producer.gateway", settings.gateway_port, {**servers, **self.gateway_tokens}),
        ]

    def runner(
        self,
        runner: RunnerFolder,
        python: Path,
        port: int | None = None,
        code: Path | None = None,
        label: str = "",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> ProcessPlan:
        """One process of a runner; `code`: where its files are, if not in its folder.

        Its own `variables` win over inherited ones, but not over what makes it a part of this environment.
        """
        port = self.runner_port(runner) if port is None else port
        return ProcessPlan(
            name=label or runner.name,
            # -P: an author's module must not shadow one of the standard library with the same name
            command=(str(python), "-P", "-m", "runnerlib"),
            url=self.url(port),
            environment=self._environment(port, variables)
            | {
                # All variables for the name: an inherited one must not win.
                **dict.fromkeys(("NAME", "RUNNER_NAME", "CONTAINER_NAME"), runner.name),
                "RUNNER_ADAPTER": str((code or runner.path) / ADAPTER_FILE),
                "ADVERTISE_HOST": self.url(port).removeprefix("http://"),
            }
            | dict(self.runner_variables.get(runner.name, {})),
            folder=runner.path,
            stop_seconds=self._stop_seconds,
            fatal_exit_codes=frozenset({ADAPTER_MISTAKE}),
            advice=f"mend {runner.path / ADAPTER_FILE}"
            + (", and it starts" if code else " and start the environment again"),
        )

    def _service(self, name: str, module: str, port: int, variables: dict[str, str]) -> ProcessPlan:
        return ProcessPlan(
            name=name,
            # -P: the current folder must not shadow our packages
            command=(sys.executable, "-P", "-m", module),
            url=self.url(port),
            environment=self._environment(port) | variables,
            stop_seconds=self._stop_seconds,
            most_delay_seconds=_SERVICE_DELAY_SECONDS,
        )

    @property
    def _stop_seconds(self) -> float:
        return self.settings.grace_seconds + _BEYOND_GRACE_SECONDS

    def _environment(self, port: int, variables: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        secrets = _SECRETS if self.has_broker else ()
        inherited = {name: value for name, value in self.inherited.items() if name not in secrets}
        logs = {"LOG_LEVEL": self.settings.log_level, "LOG_FORMAT": self.log_format}
        return {**inherited, **logs, **variables} | {
            MARK: str(self.data),
            "HOST": self.settings.host,
            "PORT": str(port),
            "DISCOVERY_URL": self.discovery_url,
            "GRACE_SECONDS": str(self.settings.grace_seconds),
            "EXIT_WITH_PARENT": "true",
            "PYTHONUNBUFFERED": "1",
        }
