"""`worker up` whose runners use the Python of the tests, which saves the making of virtual environments.

The same options and variables as `worker up`: ``python up_here.py RUNNERS DATA``.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from worker.environments import Report
from worker.interrupt import Interrupted, run_environment
from worker.output import Output
from worker.plan import Layout
from worker.runners import RunnerFolder
from worker.selection import select
from worker.settings import inherited_environment, read_settings
from worker.up import Environment


class ThisPython:
    """For every runner."""

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        return Path(sys.executable)

    def path(self, runner: RunnerFolder) -> Path:
        return Path(sys.prefix)

    def remove_older(self, name: str, pythons: list[Path]) -> None:
        """There are no others."""


async def main(runners: str, data: str) -> None:
    settings = read_settings(runners_folder=Path(runners), data_folder=Path(data))
    layout = Layout(settings, settings.data_folder.resolve(), "pretty", inherited_environment())
    output = Output(sys.stdout)
    environment = Environment(layout, select(settings, ()), ThisPython(), output)

    async def body(_: Environment) -> None:
        output.say("everything is started")
        await asyncio.Event().wait()

    with contextlib.suppress(Interrupted):
        await run_environment(environment, body, output)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
