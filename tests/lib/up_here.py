"""`worker up` whose runners without requirements use the Python of the tests, which saves making virtual environments.

The same options and variables as `worker up`: ``python up_here.py RUNNERS DATA``.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from worker.environments import EnvironmentBuilder, Report, find_runnerlib
from worker.output import Output
from worker.plan import Layout
from worker.runners import RunnerFolder, select
from worker.settings import inherited_environment, read_settings
from worker.up import Environment, Interrupted, run_environment


class ThisPython(EnvironmentBuilder):
    """For every runner that requires nothing."""

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        return await super().ensure(runner, report) if runner.requirements.is_file() else Path(sys.executable)

    def path(self, runner: RunnerFolder) -> Path:
        return super().path(runner) if runner.requirements.is_file() else Path(sys.prefix)


async def main(runners: str, data: str) -> None:
    settings = read_settings(runners_folder=Path(runners), data_folder=Path(data))
    folder = settings.data_folder.resolve()
    layout = Layout(settings, folder, "pretty", inherited_environment(), settings.queue_url)
    output = Output(sys.stdout)
    pythons = ThisPython(folder / "venvs", find_runnerlib())
    environment = Environment(layout, select(settings.runners_folder, settings.scale, ()), pythons, output)

    async def body(_: Environment) -> None:
        output.say("everything is started")
        await asyncio.Event().wait()

    with contextlib.suppress(Interrupted):
        await run_environment(environment, body, output)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
