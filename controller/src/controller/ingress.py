"""Takes the messages that any sender may write to a broker, and forwards, parks or rejects each."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from controller.admission import (
    Forward,
    Reject,
    Rules,
    Verdict,
    already_kept,
    check_rejection,
    judge,
    reject_unread,
)
from controller.completer import Completer, Decided
from controller.directory import RunnerDirectory
from controller.metrics import ControllerMetrics
from controller.runs import Run
from controller.settings import ControllerSettings
from controller.unknown_fields import UnknownFieldWarnings
from runnerlib.contract import FailureCode
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.service.component import Component
from runnerlib.service.health import Health
from runnerlib.service.lifecycle import background
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueClosed, QueueUnavailable, TaskQueueError
from taskqueue.protocols import IngressFeed, Ledger
from taskqueue.tasks import Arrival, Delivery, NewTask, Published

log = get_logger(__name__)

#: Name of this part in the process's readiness.
INGRESS = "ingress"
#: Messages that are forwarded together.
MOST_AT_ONCE = 200
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 5.0
#: How long a stop waits for messages that are being handled.
DRAIN_SECONDS = 1.0
#: Most rejections that are held here, so that they never fill the ingress's prefetch.
MOST_HELD = 50
#: How long a rejection that could not be committed is left alone.
PAUSE_AFTER_FAILURE_SECONDS = 1.0


class IngressConsumer(Component):
    """One for each controller; several controllers share what arrives."""

    def __init__(
        self,
        door: IngressFeed,
        ledger: Ledger,
        completer: Completer,
        directory: RunnerDirectory,
        health: Health,
        metrics: ControllerMetrics,
        settings: ControllerSettings,
        unknown_fields: UnknownFieldWarnings,
        wall: Callable[[], float],
    ) -> None:
        self._door = door
        self._ledger = ledger
        self._completer = completer
        self._rejections = RejectionHandler(door, completer)
        self._directory = directory
        self._health = health
        self._metrics = metrics
        self._settings = settings
        self._unknown_fields = unknown_fields
        self._wall = wall
        self._stopping = asyncio.Event()
        self._at_hand: list[Arrival] = []

    async def _start(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._leave)
        background(stack, self._rejections.run(), "refused messages")
        flow = background(stack, self.run(), "ingress")
        stack.push_async_callback(self._drain, flow)

    async def run(self) -> None:
        """Until it stops or the ingress is closed. No message and no failure ends it."""
        while not self._stopping.is_set():
            try:
                self._at_hand = await self._take()
                await self.admit(self._at_hand)
                self._at_hand = []
            except QueueClosed:
                return
            except QueueUnavailable as error:
                log.warning("ingress waits for the broker", reason=str(error))
                await asyncio.sleep(FIRST_PAUSE_SECONDS)
            except Exception:
                log.exception("ingress failed; it goes on")
                await asyncio.sleep(FIRST_PAUSE_SECONDS)

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

    async def admit(self, arrivals: Sequence[Arrival]) -> None:
        """Each gets its verdict; one that cannot even be judged or passed on is rejected alone."""
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
            self._rejections.accept(reject_unread(arrivals[0], FailureCode.MALFORMED, why))

    async def _admit(self, arrivals: Sequence[Arrival]) -> None:
        rules = Rules(
            known=self._directory.algorithms().keys(),
            is_sure=self._directory.is_sure,
            unknown_grace_seconds=self._settings.unknown_algorithm_grace_seconds,
            max_message_bytes=self._settings.max_message_bytes,
            now=self._wall(),
        )
        forwarded: list[Verdict] = []
        parked: list[Verdict] = []
        rejected: list[Reject] = []
        # Judged before anything is logged: if one cannot be judged, all are tried again, one by one.
        for arrival, verdict in [(each, judge(each, rules)) for each in arrivals]:
            if isinstance(verdict, Reject):
                log.info("message refused", task_id=verdict.task.id, code=verdict.code.value, why=verdict.message)
                rejected.append(verdict)
                continue
            (forwarded if isinstance(verdict, Forward) else parked).append(verdict)
            if arrival.first_seen_at is None:
                self._unknown_fields.warn(verdict.task.id, verdict.unknown_fields)
        counts = {"forwarded": len(forwarded), "parked": len(parked), "refused": len(rejected)}
        surplus = [each for each in rejected if not self._rejections.accept(each)]
        await self._send(self._door.forward, [each for each in forwarded if not each.task.waits_in_store])
        await self._keep([each for each in forwarded if each.task.waits_in_store])
        await self._send(self._door.park, [*parked, *surplus])
        for name, count in counts.items():
            self._metrics.arrivals.labels(name).inc(count)

    async def _send(
        self, send: Callable[[Sequence[Arrival], Sequence[NewTask]], Awaitable[None]], verdicts: Sequence[Verdict]
    ) -> None:
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
                    log.warning("messages wait in the ingress queue", count=len(arrivals), reason=str(error))
                self._health.set(INGRESS, False, str(error))
                await asyncio.sleep(pause)
                pause = min(LAST_PAUSE_SECONDS, pause * 2)
            else:
                self._health.set(INGRESS, True)
                return

    async def _keep(self, verdicts: Sequence[Verdict]) -> None:
        """Puts tasks into the store, where they wait for their turn or their time, and acknowledges them."""
        if not verdicts:
            return
        tasks = [each.task for each in verdicts]
        published = await self._completer.admitted(lambda: self._ledger.admit(tasks))
        arrivals = [each.delivery for each in verdicts]
        outcomes = list(zip(arrivals, published, strict=True))
        before = [delivery for delivery, outcome in outcomes if outcome is not Published.ACCEPTED]
        rows = await self._completer.lookup([each.id for each in before]) if before else {}
        decided = [
            (Run(each), decision)
            for each in before
            if each.id in rows and (decision := already_kept(each, rows[each.id])) is not None
        ]
        await self._completer.complete(decided)
        over = {id(run.delivery) for run, _ in decided}
        await self._completer.acknowledge([each for each in arrivals if id(each) not in over])

    async def _drain(self, flow: "asyncio.Task[None]") -> None:
        """Takes nothing more; messages that are being handled get a moment."""
        self._stopping.set()
        idle = asyncio.ensure_future(self._rejections.wait_idle())
        await asyncio.wait([flow, idle], timeout=DRAIN_SECONDS)
        idle.cancel()

    async def _leave(self) -> None:
        """Messages without a committed outcome are given back, uncounted."""
        left = [
            Delivery(each.message_id or "", "", b"null", "", attempt=each.attempt, receipt=each.receipt, body=each.body)
            for each in self._at_hand
        ]
        await self._completer.return_unread([*self._rejections.held(), *left])
        await self._door.close()


class RejectionHandler:
    """Rejected messages become failed tasks with a dead letter and a reply, like runs that failed.

    It works beside the ingress consumer: the store may be unavailable while tasks are still forwarded.
    """

    def __init__(self, door: IngressFeed, completer: Completer) -> None:
        self._door = door
        self._completer = completer
        self._held: deque[Reject] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def accept(self, rejected: Reject) -> bool:
        """False: too many are held, this one is to be parked. What is too large to be sent again is held anyway."""
        if len(self._held) >= MOST_HELD and len(rejected.arrival.body) <= MAX_MESSAGE_BYTES:
            return False
        self._held.append(rejected)
        self._idle.clear()
        self._arrived.set()
        return True

    async def wait_idle(self) -> None:
        """Until all that were accepted are committed."""
        await self._idle.wait()

    def held(self) -> list[Delivery]:
        """What is not committed, to be given back when the controller stops."""
        return [each.delivery for each in self._held]

    async def run(self) -> None:
        """For ever. One that cannot be committed is parked and comes again; it holds up no other."""
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
                    await self._complete_alone(each)
            for _ in batch:
                self._held.popleft()

    async def complete(self, batch: Sequence[Reject]) -> None:
        """Asks the store what became of these ids, then records, replies and acknowledges."""
        rows = await self._completer.lookup([each.delivery.id for each in batch])
        decided: list[Decided] = []
        forwards: list[Forward] = []
        for each in batch:
            row = rows.get(each.delivery.id)
            decision = check_rejection(each, row)
            if isinstance(decision, Forward):
                forwards.append(decision)
            else:
                decided.append((Run(each.delivery, history=() if row is None else row.history), decision))
        if forwards:
            await self._door.forward([each.arrival for each in forwards], [each.task for each in forwards])
        await self._completer.complete(decided)

    async def _complete_alone(self, rejected: Reject) -> None:
        task_id = rejected.delivery.id
        try:
            await self.complete([rejected])
        except Exception:
            log.exception("refused message cannot be settled; it is put aside", task_id=task_id)
            await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
            try:
                await self._door.park([rejected.arrival], [rejected.task])
            except Exception as error:
                # The broker still has it, and hands it out again on the next connection.
                log.warning("message cannot be put aside; it is left", task_id=task_id, reason=str(error))
