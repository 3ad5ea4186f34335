"""A process that owns a SQLite file and works for it, to be killed by tests: FILE RUNNER_URL BOOT [TASKS]."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from controller.build import build
from controller.settings import ControllerSettings
from runnerlib.contract import (
    AlgorithmDescription,
    AlgorithmView,
    Catalogue,
    RunnerLevel,
    RunnerView,
    strict_json,
    task_digest,
)
from runnerlib.service.health import Health
from taskqueue.connect import open_embedded
from taskqueue.tasks import NewTask


class StaticSource:
    """One runner, for ever."""

    is_sure = True

    def __init__(self, url: str, boot: str) -> None:
        view = AlgorithmView(description=AlgorithmDescription(name="echo"), schema_digest="d", runners=["r1"])
        runner = RunnerView(id="r1", name="r1", host=url, boot=boot, level=RunnerLevel.FULL, algorithms=["echo"])
        self.catalogue = Catalogue(
            epoch="e",
            index=1,
            uptime_seconds=99,
            lease_seconds=30,
            runners={"r1": runner},
            algorithms={"echo": view},
        )

    async def wait_changed(self, since: int) -> int:
        await asyncio.Event().wait()
        return since


async def main(file: str, url: str, boot: str, tasks: str = "[]") -> None:
    async with AsyncExitStack() as stack:
        queue, store = await stack.enter_async_context(open_embedded(file))
        await queue.publish(
            [
                NewTask(id, "echo", strict_json.dumps(payload), task_digest("echo", payload))
                for id, payload in json.loads(tasks)
            ]
        )
        print("confirmed", flush=True)
        source = StaticSource(url, boot)
        await build(stack, ControllerSettings(), queue, store, source, Health(), CollectorRegistry(), sweeper=queue)
        while any(not state.is_terminal for count in await store.counts() for state in count.by_state):
            await asyncio.sleep(0.02)
        print("all ended", flush=True)


asyncio.run(main(*sys.argv[1:]))
