import asyncio
import time
from typing import Any

import pytest

from runner_discovery.errors import Overloaded
from runner_discovery.turns import LONGEST_REST_SECONDS, MOST_WAITING_BYTES, REST, Turns


def test_turns_are_given_in_order_and_one_at_a_time() -> None:
    async def scenario() -> None:
        turns, seen = Turns(lambda: 0.0), list[int]()

        async def use(number: int) -> None:
            async with turns.turn(1):
                seen.append(number)
                await asyncio.sleep(0)
                seen.append(number)

        await asyncio.gather(*(use(number) for number in range(5)))
        assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]

    asyncio.run(scenario())


def test_after_a_turn_nobody_has_one_for_as_long_as_it_deserves(clock: Any) -> None:
    async def scenario() -> None:
        turns = Turns(clock, clock)
        async with turns.turn(1):
            clock.now += 0.02
        began = time.monotonic()
        async with turns.turn(1):
            assert time.monotonic() - began >= 0.02 * REST * 0.9
            clock.now += 3600
        began = time.monotonic()
        clock.now += LONGEST_REST_SECONDS
        async with turns.turn(1):
            assert time.monotonic() - began < 5

    asyncio.run(scenario())


def test_a_turn_that_fails_ends() -> None:
    async def scenario() -> None:
        turns = Turns(lambda: 0.0)
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                async with turns.turn(MOST_WAITING_BYTES):
                    raise ValueError("no")

    asyncio.run(scenario())


def test_no_more_wait_than_are_worth_keeping() -> None:
    async def scenario() -> None:
        turns = Turns(lambda: 0.0)
        async with turns.turn(MOST_WAITING_BYTES - 1):
            waiting = asyncio.ensure_future(turns.turn(1).__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="again in a moment"):
                await turns.turn(1).__aenter__()
        await waiting

    asyncio.run(scenario())
