"""``python -m runnerlib``: settings → logging → adapter → components → run."""

import asyncio
import secrets
import socket
import sys
import time
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from runnerlib.adapter.errors import AdapterError
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import Adapter
from runnerlib.app import create_runner_app
from runnerlib.contract import RunnerRegistration
from runnerlib.drain import Drain
from runnerlib.execution.metrics import RunMetrics
from runnerlib.execution.pool import Callbacks, Pool, ProcessSetup
from runnerlib.reception import Reception
from runnerlib.registration import Registration
from runnerlib.run_table import RunTable
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import StartupError, background, run_service
from runnerlib.service.logs import configure_logging, get_logger
from runnerlib.service.metrics import new_registry
from runnerlib.service.settings import load_settings
from runnerlib.settings import RunnerSettings, option_overrides

#: The exit code for an adapter that cannot be served: only its author can change that, so nobody need start it again.
ADAPTER_MISTAKE = 3
#: Off the list, a runner serves for so long whoever has not heard of it yet, instead of refusing the connection.
HEARD_SECONDS = 0.2
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to

log = get_logger(__name__)


def serve() -> int:
    """Serves the adapter of the current folder, or of RUNNER_ADAPTER, until a signal; returns the exit code."""
    settings = load_settings(RunnerSettings)
    overrides = option_overrides()
    try:
        adapter = load_adapter(settings.runner_adapter, overrides)
    except AdapterError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return ADAPTER_MISTAKE
    name = settings.name or adapter.path.resolve().parent.name
    configure_logging(name, settings)
    for note in adapter.notes:
        log.warning(note)
    return run_service(Runner(name, adapter, settings, overrides).build, settings)


class Runner:
    """One runner, put together; :meth:`build` enters its components on a stack."""

    def __init__(self, name: str, adapter: Adapter, settings: RunnerSettings, overrides: dict[str, str]) -> None:
        self.name = name
        self.boot = secrets.token_hex(8)
        self.port = 0
        self._adapter = adapter
        self._settings = settings
        self._measures = RunMetrics()
        self._health = Health()
        self._registration: Registration | None = None
        self._reception = Reception(adapter.algorithms, RunTable(time.monotonic), self._measures)
        self._pool = Pool(
            adapter,
            self._process_setup(overrides),
            Callbacks(self._reception.finish, self._reception.release, self._ready_changed),
            self._health,
            self._measures,
            settings.cancel_grace_seconds,
        )
        self._reception.connect(self._pool)

    async def build(self, stack: AsyncExitStack) -> None:
        """Left in reverse order: off the list, drained, no more answers, no more processes."""
        settings = self._settings
        await stack.enter_async_context(self._pool)
        background(stack, self._reception.sweep(), "sweep of kept outcomes")
        app = create_runner_app(self.name, self.boot, self._adapter, self._reception, self._health, self._registry())
        server = await stack.enter_async_context(HttpServer(app, settings.host, settings.port))
        self.port = server.port
        drain = Drain(self._reception, self._pool, self._health, settings.grace_seconds, self._leave)
        await stack.enter_async_context(drain)
        log.info("serving", docs=f"http://{self._address()}/docs", algorithms=list(self._adapter.algorithms))
        if settings.discovery:
            self._registration = Registration(settings.discovery, self._described(), self._health)
            self._ready_changed()
            self._registration.start()

    async def _leave(self) -> None:
        """In a thread: runs are answered meanwhile."""
        if self._registration is not None:
            await asyncio.to_thread(self._registration.stop)
            await asyncio.sleep(HEARD_SECONDS)

    def _described(self) -> RunnerRegistration:
        """Raises StartupError for a name or address that nobody can register under."""
        try:
            head = RunnerRegistration(name=self.name, host=self._address(), boot=self.boot, algorithms=[])
        except ValidationError as error:
            field, said = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
            variable = {"name": "RUNNER_NAME", "host": "ADVERTISE_HOST"}.get(str(field), str(field))
            raise StartupError(f"discovery takes no such {field}: {said}; set {variable}") from None
        # All of them, also more than one runner can register: which of them cannot, the registration says.
        return head.model_copy(update={"algorithms": self._adapter.describe()})

    def _address(self) -> str:
        """What others can reach this runner by."""
        settings = self._settings
        host = settings.advertise_host
        if not host:
            everywhere = settings.host in _EVERYWHERE
            host = (settings.container_name or socket.gethostname()) if everywhere else settings.host
            host = f"[{host}]" if ":" in host else host
        bare = host.rpartition("]")[2] if host.startswith("[") else host.partition("://")[2] or host
        return host if ":" in bare else f"{host}:{self.port}"

    def _registry(self) -> CollectorRegistry:
        registry = new_registry()
        registry.register(self._measures)
        return registry

    def _process_setup(self, overrides: dict[str, str]) -> ProcessSetup:
        settings = self._settings
        return ProcessSetup(
            adapter=str(self._adapter.path.resolve()),
            import_path=tuple(sys.path),
            overrides=overrides,
            device=settings.device,
            service=self.name,
            log_level=settings.log_level,
            log_format=settings.log_format,
            fetch_rules=settings.fetch_rules,
        )

    def _ready_changed(self) -> None:
        if self._registration is not None:
            self._registration.offer(self._pool.working())
