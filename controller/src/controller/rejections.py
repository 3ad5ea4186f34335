"""What the front door refused, settled beside the flow: the store may be away while tasks still move on."""

import asyncio
from collections import deque
from collections.abc import Sequence

from controller.admission import Forward, Refuse, verdict_on
from controller.completer import Completer
from controller.runs import Run
from controller.store_gate import StoreGate
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.service.logs import get_logger
from taskqueue.errors import TaskQueueError
from taskqueue.protocols import FrontDoor, TaskStore
from taskqueue.tasks import Delivery

log = get_logger(__name__)

#: Most refusals that are held here, so that what is held never fills the front door's prefetch.
MOST_HELD = 50
#: How long one that could not be settled is left alone.
PAUSE_AFTER_FAILURE_SECONDS = 1.0


class RejectionHandler:
    """Refused messages become failed tasks with a dead letter and an answer, like runs that failed."""

    def __init__(self, door: FrontDoor, store: TaskStore, gate: StoreGate, completer: Completer) -> None:
        self._door = door
        self._store = store
        self._gate = gate
        self._completer = completer
        self._held: deque[Refuse] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def accept(self, refused: Refuse) -> bool:
        """False: too many are held, this one is to be put aside. What is too large to be sent again is held anyway."""
        if len(self._held) >= MOST_HELD and len(refused.arrival.body) <= MAX_MESSAGE_BYTES:
            return False
        self._held.append(refused)
        self._idle.clear()
        self._arrived.set()
        return True

    async def wait_idle(self) -> None:
        """Until all that were accepted are settled."""
        await self._idle.wait()

    def leftovers(self) -> list[Delivery]:
        """What was not settled, to be given back when the controller stops."""
        return [each.delivery for each in self._held]

    async def run(self) -> None:
        """For ever. One that cannot be settled is put aside and comes again; it holds up no other."""
        while True:
            if not self._held:
                self._idle.set()
                self._arrived.clear()
                await self._arrived.wait()
            batch = list(self._held)
            try:
                await self.complete(batch)
            except TaskQueueError as error:
                log.warning("refused messages wait", reason=str(error))
                await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
                continue
            except Exception:
                log.exception("refused messages cannot be settled together; each is tried alone", count=len(batch))
                for each in batch:
                    await self._settle_alone(each)
            for _ in batch:
                self._held.popleft()

    async def complete(self, batch: Sequence[Refuse]) -> None:
        """Asks the store what became of these ids, then records, answers and acknowledges."""
        ids = list({each.delivery.id for each in batch})
        rows = await self._gate.retry_until_available("looking refused tasks up", lambda: self._store.lookup(ids))
        outcomes = []
        forwards: list[Forward] = []
        for each in batch:
            row = rows.get(each.delivery.id)
            verdict = verdict_on(each, row)
            if isinstance(verdict, Forward):
                forwards.append(verdict)
            else:
                outcomes.append((Run(each.delivery, history=() if row is None else row.history), verdict))
        if forwards:
            await self._door.forward([each.arrival for each in forwards], [each.task for each in forwards])
        await self._completer.complete(outcomes)

    async def _settle_alone(self, refused: Refuse) -> None:
        try:
            await self.complete([refused])
        except Exception:
            log.exception("refused message cannot be settled; it is put aside", task_id=refused.delivery.id)
            await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
            await self._put_aside(refused)

    async def _put_aside(self, refused: Refuse) -> None:
        try:
            await self._door.park([refused.arrival], [refused.task])
        except Exception as error:
            # The broker still has it, and hands it out again on the next connection.
            log.warning("message cannot be put aside; it is left", task_id=refused.delivery.id, reason=str(error))
