"""One version of a runner: a copy of its code, and the processes that run it."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.port_pool import PortPool
from worker.processes import ManagedProcess
from worker.state_file import ProcessState


@dataclass(eq=False)
class Edition:
    """`code` is None when the runner's own folder is served, which nobody but its author may remove."""

    version: str
    python: Path
    code: Path | None = None
    processes: list[ManagedProcess] = field(default_factory=list)
    ports: Sequence[int] = ()
    #: tasks that tell when a process is ready again
    watches: list["asyncio.Task[None]"] = field(default_factory=list)
    draining: bool = False

    def start(self) -> None:
        for process in self.processes:
            process.start()

    async def stop(self, ports: PortPool) -> None:
        """Lets the processes end what they run, then gives back all that they had. Idempotent."""
        self.draining = True
        for watch in self.watches:
            watch.cancel()
        await asyncio.gather(*(process.stop() for process in self.processes))
        for port in self.ports:
            ports.give_back(port)
        self.ports = ()
        if self.code is not None:
            await asyncio.to_thread(shutil.rmtree, self.code, ignore_errors=True)

    def state(self) -> list[ProcessState]:
        return [
            ProcessState(
                url=process.plan.url,
                pid=process.pid,
                since=process.ready_at if process.is_ready else None,
                draining=self.draining,
            )
            for process in self.processes
            if process.pid is not None or not self.draining
        ]
