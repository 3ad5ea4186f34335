"""Takes what strangers send to a broker's front door, and passes it on, puts it aside, or refuses it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from controller.admission import Forward, Park, Refuse, Rules, judge, refuse_unread
from controller.completer import Completer
from controller.directory import RunnerDirectory
from controller.intake import UnknownFieldWarnings
from controller.metrics import ControllerMetrics
from controller.rejections import RejectionHandler
from runnerlib.contract import FailureCode
from runnerlib.service.component import Component
from runnerlib.service.health import Health
from runnerlib.service.lifecycle import background
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueClosed, QueueUnavailable, TaskQueueError
from taskqueue.protocols import FrontDoor
from taskqueue.tasks import Arrival, Delivery, NewTask

log = get_logger(__name__)

#: Name of this part in the process's readiness.
DOOR = "front door"
#: Messages that travel on together.
MOST_AT_ONCE = 200
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 5.0
#: How long a stop waits for what is at hand.
DRAIN_SECONDS = 1.0

_Send = Callable[[Sequence[Arrival], Sequence[NewTask]], Awaitable[None]]


class IngressConsumer(Component):
    """One for each controller; several controllers share what arrives."""

    def __init__(
        self,
        door: FrontDoor,
        completer: Completer,
        rejections: RejectionHandler,
        directory: RunnerDirectory,
        health: Health,
        metrics: ControllerMetrics,
        *,
        unknown_grace_seconds: float,
        max_message_bytes: int,
        clock: Callable[[], float] = time.time,
        unknown_fields: UnknownFieldWarnings | None = None,
    ) -> None:
        self._door = door
        self._completer = completer
        self._rejections = rejections
        self._directory = directory
        self._health = health
        self._metrics = metrics
        self._unknown_grace_seconds = unknown_grace_seconds
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        self._unknown_fields = unknown_fields or UnknownFieldWarnings()
        self._stopping = asyncio.Event()
        self._at_hand: list[Arrival] = []

    async def _start(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._leave)
        background(stack, self._rejections.run(), "refused messages")
        flow = background(stack, self.run(), "front door")
        stack.push_async_callback(self._drain, flow)

    async def run(self) -> None:
        """Until it stops or the door is closed. Nothing that arrives ends it."""
        while not self._stopping.is_set():
            try:
                self._at_hand = await self._take()
                await self.admit(self._at_hand)
                self._at_hand = []
            except QueueClosed:
                return
            except QueueUnavailable as error:
                log.warning("the front door waits for the broker", reason=str(error))
                await asyncio.sleep(FIRST_PAUSE_SECONDS)
            except Exception:
                log.exception("the front door failed; it goes on")
                await asyncio.sleep(FIRST_PAUSE_SECONDS)

    async def admit(self, arrivals: Sequence[Arrival]) -> None:
        """Each gets its verdict; one that cannot even be judged or passed on is refused alone."""
        try:
            await self._admit(arrivals)
        except TaskQueueError:
            raise
        except Exception as error:
            if len(arrivals) > 1:
                log.exception("messages cannot be admitted together; each is tried alone", count=len(arrivals))
                for each in arrivals:
                    await self.admit([each])
                return
            log.exception("message cannot be admitted; it fails")
            why = f"the message cannot be passed on: {type(error).__name__}: {error}"
            self._rejections.accept(refuse_unread(arrivals[0], FailureCode.MALFORMED, why))

    async def _admit(self, arrivals: Sequence[Arrival]) -> None:
        rules = Rules(
            known=self._directory.algorithms().keys(),
            is_sure=self._directory.is_sure,
            unknown_grace_seconds=self._unknown_grace_seconds,
            max_message_bytes=self._max_message_bytes,
            now=self._clock(),
        )
        verdicts = [judge(each, rules) for each in arrivals]
        refused = [each for each in verdicts if isinstance(each, Refuse)]
        for each in refused:
            log.info("message refused", task_id=each.delivery.id, code=each.code.value, why=each.message)
        for verdict in verdicts:
            if isinstance(verdict, Forward | Park) and verdict.arrival.first_seen_at is None:
                self._unknown_fields.tell(verdict.task.id, verdict.unknown_fields)
        surplus = [each for each in refused if not self._rejections.accept(each)]
        await self._send(self._door.forward, [each for each in verdicts if isinstance(each, Forward)])
        await self._send(self._door.park, [*(each for each in verdicts if isinstance(each, Park)), *surplus])
        for name, kind in (("forwarded", Forward), ("parked", Park), ("refused", Refuse)):
            self._metrics.arrivals.labels(name).inc(sum(isinstance(each, kind) for each in verdicts))

    async def _send(self, send: _Send, verdicts: Sequence[Forward | Park | Refuse]) -> None:
        """All in one call, repeated until the broker has them: a second time under the same id is harmless."""
        if not verdicts:
            return
        arrivals, tasks = [each.arrival for each in verdicts], [each.task for each in verdicts]
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await send(arrivals, tasks)
            except QueueUnavailable as error:
                if pause == FIRST_PAUSE_SECONDS:
                    log.warning("messages wait at the front door", count=len(arrivals), reason=str(error))
                self._health.set(DOOR, False, str(error))
                await asyncio.sleep(pause)
                pause = min(LAST_PAUSE_SECONDS, pause * 2)
            else:
                self._health.set(DOOR, True)
                return

    async def _take(self) -> list[Arrival]:
        taking = asyncio.ensure_future(self._door.take(MOST_AT_ONCE))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([taking, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            taking.cancel()
            await asyncio.wait([taking])
        return [] if taking.cancelled() else taking.result()

    async def _drain(self, flow: "asyncio.Task[None]") -> None:
        """Takes nothing more; what is at hand gets a moment to be passed on."""
        self._stopping.set()
        settled = asyncio.ensure_future(self._rejections.wait_idle())
        await asyncio.wait([flow, settled], timeout=DRAIN_SECONDS)
        settled.cancel()

    async def _leave(self) -> None:
        """What was not settled is given back, uncounted."""
        leftovers = [*self._rejections.leftovers(), *map(_as_delivery, self._at_hand)]
        await self._completer.give_back(leftovers)
        await self._door.close()


def _as_delivery(arrival: Arrival) -> Delivery:
    return Delivery(
        arrival.message_id or "", "", b"null", "", attempt=arrival.attempt, receipt=arrival.receipt, body=arrival.body
    )
