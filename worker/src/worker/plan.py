"""What an environment consists of: addresses, commands and variables of each process. Pure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from runnerlib.contract.identity import RunnerKeys
from worker.runners import ADAPTER_FILE, RunnerFolder
from worker.settings import WorkerSettings, without_secrets, without_servers

DISCOVERY = "discovery"
CORE = "core"
CONTROLLER = "controller"
GATEWAY = "gateway"
_TOLD = ("QUEUE_URL", "QUEUE_URL_FILE", "DATABASE_URL", "DATABASE_URL_FILE", "RABBITMQ_HOST")
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


@dataclass(frozen=True, slots=True)
class EnvironmentSecrets:
    """The keys of an environment, and what its processes are told; of one that asks for no tokens, all are empty."""

    keys: RunnerKeys | None = None
    #: variables for discovery, controller and gateway
    of_services: Mapping[str, str] = field(default_factory=dict)
    #: variables for the gateway alone
    of_gateway: Mapping[str, str] = field(default_factory=dict)

    def of_runner(self, name: str) -> dict[str, str]:
        """Variables for the runner of that name alone."""
        return {} if self.keys is None else {"RUNNER_TOKEN": self.keys.runner_token(name)}

    @property
    def service_token(self) -> str:
        return "" if self.keys is None else self.keys.service_token()


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
    secrets: EnvironmentSecrets = EnvironmentSecrets()

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
        variables = {"SNAPSHOT_PATH": str(self.data / "discovery.json"), **self.secrets.of_services}
        inherited = without_servers(self.inherited)
        return self._service(DISCOVERY, "runner_discovery", self.settings.discovery_port, variables, inherited)

    def services(self) -> list[ProcessPlan]:
        """The services in the order in which they start, and stop.

        The controller starts before the gateway, so that accepted tasks are served. It also stops first, so that
        senders can ask for results to the end; what they send meanwhile is durable and waits.
        """
        settings = self.settings
        if not self.has_broker:
            core = {"DATA_FOLDER": str(self.data), **self.secrets.of_services, **self.secrets.of_gateway}
            return [self._service(CORE, "worker.core", settings.gateway_port, core)]
        # As variables, never on a command line: every user of the machine can read that.
        servers = {"QUEUE_URL": self.queue_url, "DATABASE_URL": settings.database_url, **self.secrets.of_services}
        return [
            self._service(CONTROLLER, "controller", settings.controller_port, servers),
            self._service(GATEWAY, "producer.gateway", settings.gateway_port, {**servers, **self.secrets.of_gateway}),
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
            environment=self._environment(port, without_secrets(self.inherited), variables)
            | self.secrets.of_runner(runner.name)
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

    def _service(
        self, name: str, module: str, port: int, variables: dict[str, str], inherited: Mapping[str, str] | None = None
    ) -> ProcessPlan:
        inherited = self.inherited if inherited is None else inherited
        # They are told where the servers are by what `worker` was told.
        inherited = {name: value for name, value in inherited.items() if name not in _TOLD}
        return ProcessPlan(
            name=name,
            # -P: the current folder must not shadow our packages
            command=(sys.executable, "-P", "-m", module),
            url=self.url(port),
            environment=self._environment(port, inherited) | variables,
            stop_seconds=self._stop_seconds,
            most_delay_seconds=_SERVICE_DELAY_SECONDS,
        )

    @property
    def _stop_seconds(self) -> float:
        return self.settings.grace_seconds + _BEYOND_GRACE_SECONDS

    def _environment(
        self, port: int, inherited: Mapping[str, str], variables: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, str]:
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
