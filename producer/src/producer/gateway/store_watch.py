"""Tells readiness whether the store answers, so that senders are led to gateways whose store does."""

import asyncio

from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger
from taskqueue.errors import StoreUnavailable
from taskqueue.opening import STORE
from taskqueue.protocols import TaskStore

log = get_logger(__name__)

LOOK_SECONDS = 2.0
#: No task needs to have it: one indexed look-up is all that is asked.
_ANY_ID = "-"


async def watch_store(store: TaskStore, health: Health) -> None:
    """Looks for ever; changes nothing but the part `store` of `health`."""
    is_there = True
    while True:
        try:
            await store.get(_ANY_ID)
        except StoreUnavailable as error:
            health.set(STORE, False, str(error))
            if is_there:
                log.warning("the store does not answer; tasks are refused until it does", reason=str(error))
            is_there = False
        else:
            health.set(STORE, True)
            if not is_there:
                log.info("the store answers again")
            is_there = True
        await asyncio.sleep(LOOK_SECONDS)
