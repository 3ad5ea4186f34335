"""Opens stores and queues whose servers may start later: the services of an environment start in any order."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from runnerlib.service.backoff import Backoff
from runnerlib.service.lifecycle import StartupError
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueUnavailable, StoreUnavailable, TaskQueueError

log = get_logger(__name__)
T = TypeVar("T")
Report = Callable[[str, bool, str], None]

STORE = "store"
FIRST_PAUSE_SECONDS = 0.25
MOST_PAUSE_SECONDS = 5.0


async def opened(stack: AsyncExitStack, context: AbstractAsyncContextManager[T]) -> T:
    """Enters the context on `stack`. Raises StartupError if it cannot be used as it is configured."""
    try:
        return await stack.enter_async_context(context)
    except TaskQueueError as error:
        raise StartupError(str(error)) from None


async def opened_when_there(
    stack: AsyncExitStack, open_store: Callable[[], AbstractAsyncContextManager[T]], report: Report
) -> T:
    """The same, but waits for a server that is away. `report` is `Health.set`."""
    backoff, logged = Backoff(FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS, least=0.5), ""
    while True:
        try:
            value = await stack.enter_async_context(open_store())
        except (StoreUnavailable, QueueUnavailable) as error:
            reason = str(error)
        except TaskQueueError as error:
            raise StartupError(str(error)) from None
        else:
            report(STORE, True, "")
            return value
        report(STORE, False, reason)
        if reason != logged:
            log.warning("the store cannot be opened yet; it is tried again until it answers", reason=reason)
            logged = reason
        await asyncio.sleep(backoff.next_seconds())
