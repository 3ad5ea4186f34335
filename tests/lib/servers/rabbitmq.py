"""A RabbitMQ of one's own, without Docker: the installed one, or one that lies in a root folder of its own (chroot)."""

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.processes import accepts, free_port, kill_family, signal_family, wait_until

#: A root folder with another version than the installed one.
ROOT_VARIABLE = "RABBITMQ_4_ROOT"
_INSTALLED = "usr/lib/rabbitmq/lib"
_START_SECONDS = 90.0


@dataclass(frozen=True)
class Installation:
    """`root` is empty for the machine's own; `sbin` is the path inside the root."""

    version: str
    root: str
    sbin: str


def installations() -> dict[str, Installation]:
    """By major version: "3", "4"."""
    found = {}
    for root in (os.environ.get(ROOT_VARIABLE, ""), ""):
        for folder in sorted(Path(root or "/").joinpath(_INSTALLED).glob("rabbitmq_server-*")):
            version = folder.name.removeprefix("rabbitmq_server-")
            inside = "/" / folder.relative_to(root or "/") / "sbin"
            found[version.partition(".")[0]] = Installation(version, root, str(inside))
    return found


class RabbitMQ:
    """``with RabbitMQ(installation) as server``: started, with management; stopped and removed at the end.

    `config` are further lines of rabbitmq.conf.
    """

    def __init__(self, installation: Installation, config: Mapping[str, str] | None = None) -> None:
        self.installation = installation
        self.port, self.management_port, self._dist_port, self._epmd_port = (free_port() for _ in range(4))
        self.user, self.password = "test", secrets.token_hex(8)
        root = installation.root
        self.folder = Path(tempfile.mkdtemp(prefix="rmq-", dir=f"{root}/tmp" if root else None))
        #: the same folder, seen from inside the root
        self.inside = Path("/tmp") / self.folder.name if root else self.folder
        self.node = f"{self.folder.name}@localhost"
        self._process: subprocess.Popen[bytes] | None = None
        self._write_config(config or {})

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is not running"
        return self._process.pid

    @property
    def url(self) -> str:
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/{urllib.parse.quote(vhost, safe='')}"

    def start(self) -> "RabbitMQ":
        with (self.folder / "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("rabbitmq-server"),
                env=self._environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._is_up, "RabbitMQ started", _START_SECONDS)
        except TimeoutError:
            tail = (self.folder / "console.log").read_text(errors="replace")[-3000:]
            self.kill()
            raise RuntimeError(f"RabbitMQ did not start:\n{tail}") from None
        return self

    def stop(self) -> None:
        """In good order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
            wait_until(lambda: not accepts(self.port), "the port closed", 20)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            kill_family(self._process.pid)
            self._process.wait(10)
            self._process = None
            wait_until(lambda: not accepts(self.port), "the port closed", 20)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        assert self._process is not None
        signal_family(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            signal_family(self._process.pid, signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """`rabbitmqctl`; starting it takes a second or two."""
        command = [*self._command("rabbitmqctl"), "-n", self.node, *arguments]
        done = subprocess.run(command, env=self._environment, cwd="/", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{arguments}: {done.stdout} {done.stderr}"
        return done.stdout

    def set_environment(self, application: str, **values: str) -> None:
        """Erlang application settings of the running broker, as Erlang terms: ``consumer_timeout="5000"``."""
        terms = ", ".join(f"application:set_env({application}, {name}, {value})" for name, value in values.items())
        self.ctl("eval", f"{terms}.")

    def management(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the management API, as in ``management("GET", "queues")``; None for 404 and empty answers."""
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management_port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from None
        return json.loads(content) if content else None

    def add_vhost(self, vhost: str) -> str:
        """Makes it and returns its URL."""
        name = urllib.parse.quote(vhost, safe="")
        self.management("PUT", f"vhosts/{name}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.management("PUT", f"permissions/{name}/{self.user}", everything)
        return self.url_of(vhost)

    def remove_vhost(self, vhost: str) -> None:
        self.management("DELETE", f"vhosts/{urllib.parse.quote(vhost, safe='')}")

    def close(self) -> None:
        """Kills what runs, as nothing of it is kept, and removes the folder. Idempotent."""
        self.kill()
        # its epmd is a daemon of its own, which refuses to end until it has noticed that its node is gone
        command = [*self._chroot, "epmd", "-port", str(self._epmd_port), "-kill"]

        def gone() -> bool:
            subprocess.run(command, env=self._environment, capture_output=True, timeout=20)
            return not accepts(self._epmd_port)

        wait_until(gone, "epmd ended", 20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "RabbitMQ":
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise TimeoutError("RabbitMQ ended by itself")
        return accepts(self.port) and accepts(self.management_port)

    @property
    def _chroot(self) -> list[str]:
        return ["chroot", self.installation.root] if self.installation.root else []

    def _command(self, program: str) -> list[str]:
        # not the wrapper in /usr/sbin: it drops the environment
        return [*self._chroot, f"{self.installation.sbin}/{program}"]

    def _write_config(self, more: Mapping[str, str]) -> None:
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(self.management_port),
            "default_user": self.user,
            "default_pass": self.password,
            "log.file": "false",
            "log.console": "true",
            "log.console.level": "warning",
            "disk_free_limit.absolute": "50MB",
            **more,
        }
        config = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (self.folder / "rabbitmq.conf").write_text(config)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].")

    @property
    def _environment(self) -> dict[str, str]:
        inside = self.inside
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            # where .erlang.cookie is made
            "HOME": str(inside),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONFIG_FILE": str(inside / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(inside / "conf.d"),
            # Debian's own must not be read
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(inside / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(inside / "data"),
            "RABBITMQ_LOG_BASE": str(inside / "log"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # idle schedulers must not spin: the tests' own processes need the cores
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }


def versions(found: Iterable[Installation]) -> str:
    return ", ".join(each.version for each in found) or "none"
