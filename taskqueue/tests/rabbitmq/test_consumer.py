"""What keeps consuming, whatever goes wrong."""

import asyncio
import time

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.connection import no_report
from taskqueue.rabbitmq.consumer import ConsumerSupervisor, part_of


class Channels:
    """Stands for a connection: gives channels, after so many refusals without a turn of the loop."""

    def __init__(self, refusals: int = 0) -> None:
        self._refusals = refusals
        self.asked_at: list[float] = []

    async def channel(self, timeout_seconds: float) -> "Channels":
        self.asked_at.append(time.monotonic())
        if len(self.asked_at) <= self._refusals:
            raise QueueUnavailable("no free channel")
        return self

    async def close(self) -> None:
        pass


def test_channel_that_is_refused_at_once_is_asked_for_with_pauses_that_let_others_work(run) -> None:
    async def scenario() -> None:
        # 30 pauses take longer than the test looks; without pauses the loop would never look at all.
        channels = Channels(refusals=30)

        async def serve(_channel: object) -> None:
            raise AssertionError("it came here without a pause")

        keeping = asyncio.create_task(ConsumerSupervisor(channels, "tasks.upper", no_report).run(serve))
        await asyncio.wait([keeping], timeout=0.5)
        keeping.cancel()
        await asyncio.wait([keeping])
        assert keeping.cancelled()
        assert 1 < len(channels.asked_at) < 30

    run(scenario())


def test_unforeseen_failure_ends_a_channel_and_not_the_consuming(run) -> None:
    async def scenario() -> None:
        channels, served = Channels(), []

        async def serve(channel: object) -> None:
            served.append(channel)
            if len(served) == 1:
                raise ValueError("a mistake of ours")

        await ConsumerSupervisor(channels, "tasks.upper", no_report).run(serve)
        assert len(served) == 2

    run(scenario())


def test_awaited_queue_is_unready_until_it_flows_for_the_first_time(run) -> None:
    async def scenario() -> None:
        told: list[tuple[str, bool]] = []
        supervisor = ConsumerSupervisor(
            Channels(), "tasks", lambda part, ready, _reason: told.append((part, ready)), awaited=True
        )
        assert told == [(part_of("tasks"), False)]

        async def serve(_channel: object) -> None:
            supervisor.flowing()
            assert told[1:] == [(part_of("tasks"), True)]

        await supervisor.run(serve)
        assert len(told) == 2

    run(scenario())
