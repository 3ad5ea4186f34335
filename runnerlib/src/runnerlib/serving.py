"""``python -m runnerlib``: settings → logging → adapter → components → run."""

import asyncio
import secrets
import socket
import sys
import time
from contextlib import AsyncExitStack

from pydantic import ValidationError

from runnerlib.adapter.errors import AdapterError
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import Adapter
from runnerlib.app import create_runner_app
from runnerlib.contract import RunnerRegistration
from runnerlib.contract.identity import name_in
from runnerlib.execution.metrics import RunMetrics
from runnerlib.execution.pool import Pool, PoolContext, ProcessSetup
from runnerlib.registration import Registration
from runnerlib.run_manager import RunManager
from runnerlib.run_registry import RunRegistry
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import StartupError, background, run_service
from runnerlib.service.logs import configure_logging, get_logger
from runnerlib.service.metrics import new_registry
from runnerlib.service.settings import forget_secrets, load_settings
from runnerlib.service.tls import trusted
from runnerlib.settings import RunnerSettings, option_overrides

#: The exit code for an adapter that cannot be served: starting it again will not help, only its author can.
ADAPTER_MISTAKE = 3
#: After it is deregistered, a runner serves callers that do not know that yet for so long.
DEREGISTER_GRACE_SECONDS = 0.2
#: After the last run has ended, undelivered outcomes can still be fetched for so long.
LINGER_SECONDS = 1.0
_LOOK_SECONDS = 0.05
#: Worker processes may tear down for so long after that.
_TEAR_DOWN_SECONDS = 0.7
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to

log = get_logger(__name__)


def serve() -> int:
    """Serves the adapter of the current folder, or of RUNNER_ADAPTER, until a signal; returns the exit code."""
    settings = load_settings(RunnerSettings)
    forget_secrets(RunnerSettings)
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
        self._metrics = RunMetrics()
        self._health = Health()
        self._registration: Registration | None = None
        self._manager = RunManager(adapter.algorithms, RunRegistry(time.monotonic), self._metrics)
        context = PoolContext(
            self._manager.finish,
            self._manager.release,
            self._ready_changed,
            self._health,
            self._metrics,
            settings.cancel_grace_seconds,
        )
        self._pool = Pool(adapter, self._process_setup(overrides), context)
        self._manager.connect(self._pool)

    async def build(self, stack: AsyncExitStack) -> None:
        """Left in reverse order: drained, then no more answers, then no more processes."""
        settings = self._settings
        if settings.token and name_in(settings.token) != self.name:
            named = name_in(settings.token)
            raise StartupError(f"the token is that of runner {named!r}, and this one is {self.name!r}; set RUNNER_NAME")
        await stack.enter_async_context(self._pool)
        background(stack, self._manager.sweep(), "sweep of kept outcomes")
        registry = new_registry()
        registry.register(self._metrics)
        app = create_runner_app(
            self.name,
            self.boot,
            self._adapter,
            self._manager,
            self._health,
            registry,
            token=settings.token,
            metrics_token=settings.metrics_token.get_secret_value(),
        )
        server = await stack.enter_async_context(HttpServer.of(app, settings))
        self.port = server.port
        stack.push_async_callback(self._drain)
        log.info("serving", docs=f"{self._address()}/docs", algorithms=list(self._adapter.algorithms))
        if settings.discovery:
            # A context takes 3 MB.
            tls = trusted(settings.ca_certificates_file) if settings.discovery.startswith("https:") else None
            self._registration = Registration(settings.discovery, self._described(), self._health, settings.token, tls)
            self._ready_changed()
            self._registration.start()

    async def _drain(self) -> None:
        """Deregisters, starts nothing new, lets runs end, and waits until their outcomes are fetched.

        Takes ``grace_seconds`` and little more: what follows must still fit into the time of a stop.
        """
        grace_seconds = self._settings.grace_seconds
        ends_at = time.monotonic() + grace_seconds
        log.info("draining", grace_seconds=grace_seconds)
        self._health.set("draining", False, "this runner is stopping")
        if self._registration is not None:
            # In a thread: runs are answered meanwhile.
            await asyncio.to_thread(self._registration.stop)
            await asyncio.sleep(DEREGISTER_GRACE_SECONDS)
        self._manager.start_draining()
        await self._pool.drain(max(0.0, ends_at - time.monotonic()))
        linger_until = min(time.monotonic(), ends_at) + LINGER_SECONDS
        while self._manager.undelivered and time.monotonic() < linger_until:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_LOOK_SECONDS)
        self._pool.stop_by(ends_at + LINGER_SECONDS + _TEAR_DOWN_SECONDS)

    def _described(self) -> RunnerRegistration:
        """Raises StartupError for a name or address that cannot be registered."""
        try:
            head = RunnerRegistration(name=self.name, host=self._address(), boot=self.boot, algorithms=[])
        except ValidationError as error:
            field, said = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
            variable = {"name": "RUNNER_NAME", "host": "ADVERTISE_HOST"}.get(str(field), str(field))
            raise StartupError(f"discovery takes no such {field}: {said}; set {variable}") from None
        # All of them, even more than one runner can register: the registration says which of them cannot be.
        return head.model_copy(update={"algorithms": self._adapter.describe()})

    def _address(self) -> str:
        """Base URL at which others reach this runner."""
        settings = self._settings
        host = settings.advertise_host
        if not host:
            everywhere = settings.host in _EVERYWHERE
            host = (settings.container_name or socket.gethostname()) if everywhere else settings.host
            host = f"[{host}]" if ":" in host else host
        bare = host.rpartition("]")[2] if host.startswith("[") else host.partition("://")[2] or host
        address = host if ":" in bare else f"{host}:{self.port}"
        scheme = "http" if settings.tls_certificate_file is None else "https"
        return address if "://" in address else f"{scheme}://{address}"

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
            self._registration.advertise(self._pool.working())
