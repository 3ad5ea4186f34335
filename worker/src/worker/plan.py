"""What an environment consists of: addresses, commands and variables of each process. Decides, starts nothing."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from worker.child import ProcessPlan
from worker.ports import PortUse
from worker.runners import ADAPTER_FILE, RunnerFolder
from worker.settings import WorkerSettings

DISCOVERY = "discovery"
CORE = "core"
CONTROLLER = "controller"
GATEWAY = "gateway"
#: Where the broker and the database are, passwords included: for those alone who need to know.
_SECRETS = ("QUEUE_URL", "DATABASE_URL", "RABBITMQ_HOST")
#: Every process of an environment carries its data folder in this variable, so that it can be recognised.
MARK = "PLUGPLAY_ENVIRONMENT"
#: `python -m runnerlib` ends with it when the adapter has a mistake; only its author can change that.
ADAPTER_MISTAKE = 3
#: `python -m runnerlib check` ends with it when some algorithms cannot be registered, and the others work.
UNREGISTRABLE = 4
#: After SIGTERM a service takes its grace and a little more before it ends in any case.
_BEYOND_GRACE_SECONDS = 6.0
#: Everything needs the services: they never stay away longer than this once they could start again.
_SERVICE_DELAY_SECONDS = 5.0


@dataclass(frozen=True)
class Layout:
    """Where everything of one environment is."""

    settings: WorkerSettings
    data: Path
    #: the log format of the children; `auto` has been decided by then
    log_format: str
    inherited: dict[str, str]
    #: where the broker is; empty: queue and store are one SQLite file in `data`
    queue_url: str = ""
    #: runner → variables for its processes alone
    runner_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

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
        return self._own_ports() + [
            PortUse(self.runner_port(r), f"runner {r.name}", "RUNNER_PORTS_START") for r in runners
        ]

    def own_ports(self) -> list[int]:
        """What no runner may have."""
        return [use.port for use in self._own_ports()]

    def _own_ports(self) -> list[PortUse]:
        own = [
            PortUse(self.settings.discovery_port, DISCOVERY, "DISCOVERY_PORT"),
            PortUse(self.settings.gateway_port, "the gateway", "GATEWAY_PORT"),
        ]
        if self.has_broker:
            own.append(PortUse(self.settings.controller_port, CONTROLLER, "CONTROLLER_PORT"))
        return own

    def discovery(self) -> ProcessPlan:
        return self._service(
            DISCOVERY,
            "runner_discovery",
            self.settings.discovery_port,
            {"SNAPSHOT_PATH": str(self.data / "discovery.json")},
        )

    def services(self) -> list[ProcessPlan]:
        """What takes tasks and runs them, in the order of their start, which is also that of their stop.

        The controller before the gateway, so that what is accepted is served; and it stops first, so that senders can
        ask for results to the end. What they send meanwhile is durable and waits.
        """
        return [self.controller(), self.gateway()] if self.has_broker else [self.core()]

    def controller(self) -> ProcessPlan:
        return self._service(CONTROLLER, "controller", self.settings.controller_port, self._servers)

    def gateway(self) -> ProcessPlan:
        return self._service(GATEWAY, "producer.gateway", self.settings.gateway_port, self._servers)

    def core(self) -> ProcessPlan:
        return self._service(CORE, "worker.core", self.settings.gateway_port, {"DATA_FOLDER": str(self.data)})

    def runner(
        self,
        runner: RunnerFolder,
        python: Path,
        port: int | None = None,
        code: Path | None = None,
        label: str = "",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> ProcessPlan:
        """One process of a runner; `code` is where its files lie, when that is not its folder.

        Its own `variables` win over inherited ones, and not over what makes it a part of this environment.
        """
        port = self.runner_port(runner) if port is None else port
        return ProcessPlan(
            name=label or runner.name,
            # -P: what an author calls like a module of the standard library must not be taken for it
            command=(str(python), "-P", "-m", "runnerlib"),
            url=self.url(port),
            environment=self._environment(port, variables)
            | {
                # All its names: one that we inherited must not win.
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
            # -P: what lies in the current folder must not shadow our packages
            command=(sys.executable, "-P", "-m", module),
            url=self.url(port),
            environment=self._environment(port) | variables,
            stop_seconds=self._stop_seconds,
            most_delay_seconds=_SERVICE_DELAY_SECONDS,
        )

    @property
    def _servers(self) -> dict[str, str]:
        """By the environment and never on a command line: that one can be read by every user of the machine."""
        return {"QUEUE_URL": self.queue_url, "DATABASE_URL": self.settings.database_url}

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
