"""A PostgreSQL of one's own: a fresh cluster in a folder, on a port of its own."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from servers.processes import accepts, free_port, kill_family, signal_family, wait_until

_START_SECONDS = 60.0
#: It refuses to run as root.
_ACCOUNT = "postgres"


def find_binaries() -> Path | None:
    """The folder with initdb and postgres; the newest, when there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class PostgreSQL:
    """``with PostgreSQL(binaries) as server``: started; stopped and removed at the end."""

    def __init__(self, binaries: Path, config: Mapping[str, str] | None = None) -> None:
        self._binaries = binaries
        self.port = free_port()
        self.user, self.password = "test", secrets.token_hex(8)
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self.folder / "data"
        self._config = {"shared_buffers": "64MB", "max_connections": "100", **(config or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is not running"
        return self._process.pid

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> "PostgreSQL":
        if not self._data.exists():
            self._make_cluster()
        options = [word for name, value in self._config.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                    *("-k", str(self.folder), "-c", "listen_addresses=127.0.0.1", *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._account(),
            )
        wait_until(self._is_up, "PostgreSQL started", _START_SECONDS)
        return self

    def stop(self) -> None:
        """In good order: connections are cut, what is committed is written."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self._process is not None:
            kill_family(self._process.pid)
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        assert self._process is not None
        signal_family(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            signal_family(self._process.pid, signal.SIGCONT)

    def create_database(self, name: str) -> str:
        """Makes it and returns its URL."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        """Stops what runs and removes the folder. Idempotent."""
        self.resume()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "PostgreSQL":
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended by itself:\n{(self.folder / 'server.log').read_text()[-3000:]}")
        if not accepts(self.port):
            return False
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False  # it recovers, or is about to be ready
        return True

    def _make_cluster(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if os.getuid() == 0:
            for path in (self.folder, secret):
                shutil.chown(path, _ACCOUNT)
        command = [
            *(str(self._binaries / "initdb"), "-D", str(self._data), "-U", self.user, "--pwfile", str(secret)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=120, **self._account())
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout} {done.stderr}")

    def _account(self) -> dict[str, Any]:
        """How a process is started that must not run as root."""
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self.folder)}
        if os.getuid() != 0:
            return {"env": environment}
        entry = pwd.getpwnam(_ACCOUNT)
        return {"env": environment, "user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
