"""What is known of tasks that were just handed out, while runs of the same tasks end."""

import asyncio

from runnerlib.contract import Limits, TaskState


def test_message_whose_task_ends_while_the_store_is_asked_is_not_run_again(broker_world, make_runner, go, wait_until):
    async def scenario():
        async with broker_world() as (world, broker):
            first, second = make_runner("r1"), make_runner("r2")
            world.limits["echo"] = Limits(slots=2)
            await world.start(first, second)
            world.tell(first)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: first.started("t1"))
            look_up, asked = world.store.rows_that_forbid_start, asyncio.Event()

            async def slow(deliveries):
                rows = await look_up(deliveries)
                if not asked.is_set():
                    asked.set()
                    first.let_go("t1")
                    world.tell(second)
                    await wait_until(lambda: world.metric("controller_in_flight") == 0)
                return rows

            world.store.rows_that_forbid_start = slow
            await world.send(("t1", {"do": "hold"}))
            await asked.wait()
            await wait_until(lambda: len(broker.acked) == 2)
            assert (first.executions, second.executions) == ([("t1", 1)], [])
            assert (await world.row("t1")).state is TaskState.SUCCEEDED

    go(scenario())
