"""Puts a controller together on an exit stack, in a process of its own or beside the gateway."""

import random
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from controller.call_tools import CallContext
from controller.completer import Completer
from controller.consumer import ConsumerDependencies
from controller.consumer_set import ConsumerSet
from controller.controller import Controller
from controller.directory import CatalogueSource, RunnerDirectory
from controller.ingress import IngressConsumer
from controller.intake import Intake, UnknownFieldWarnings
from controller.maintenance import Maintenance
from controller.metrics import ControllerMetrics
from controller.outcomes import RetryPolicy
from controller.rejections import RejectionHandler
from controller.run_monitor import RunMonitor
from controller.runner_client import RunnerClient
from controller.runs import InFlight
from controller.settings import ControllerSettings
from controller.store_gate import StoreGate
from runnerlib.service.health import Health
from taskqueue.clock import GuardedWall
from taskqueue.protocols import FrontDoor, Sweeper, TaskQueue, TaskStore

_SECONDS_A_DAY = 86_400.0


async def build(
    stack: AsyncExitStack,
    settings: ControllerSettings,
    queue: TaskQueue,
    store: TaskStore,
    watch: CatalogueSource,
    health: Health,
    registry: CollectorRegistry,
    *,
    sweeper: Sweeper,
    door: FrontDoor | None = None,
) -> Controller:
    """Starts a controller on `stack`; leaving the stack stops it in order.

    The queue, the store and the watch must have been entered before, so that they are left after it. `sweeper` finds
    waiting tasks that nobody will take: the queue itself where it is a table, else the store. `door` is a broker's
    front door; it belongs to the controller from now on.
    """
    metrics, in_flight, directory = ControllerMetrics(registry), InFlight(), RunnerDirectory(watch)
    metrics.count_in_flight(lambda: len(in_flight))
    gate, wall, unknown_fields = StoreGate(health), GuardedWall(), UnknownFieldWarnings()
    completer = Completer(queue, store, gate, in_flight, metrics, lambda name: name in directory.algorithms())
    client = await stack.enter_async_context(RunnerClient(settings.runner_margin_seconds))
    policy = RetryPolicy(settings.retry_steps_seconds, random.Random())  # noqa: S311 - jitter, nothing secret
    lane_tools = ConsumerDependencies(
        queue=queue,
        gate=gate,
        intake=Intake(store, gate, completer, in_flight, wall, unknown_fields),
        in_flight=in_flight,
        calls=CallContext(client, directory, completer, policy, metrics, settings.runner_margin_seconds, wall),
    )
    lanes = ConsumerSet(directory, watch, lane_tools, health)
    maintenance = Maintenance(
        sweeper,
        store,
        gate,
        directory,
        completer,
        held_up=lanes.held_up,
        unknown_grace_seconds=settings.unknown_algorithm_grace_seconds,
        retention_seconds=settings.retention_days * _SECONDS_A_DAY,
        clock=wall,
    )
    ingress = None
    if door is not None:
        ingress = IngressConsumer(
            door,
            completer,
            RejectionHandler(door, store, gate, completer),
            directory,
            health,
            metrics,
            unknown_grace_seconds=settings.unknown_algorithm_grace_seconds,
            max_message_bytes=settings.max_message_bytes,
            clock=wall,
            unknown_fields=unknown_fields,
        )
    monitor = RunMonitor(store, in_flight, client, completer, margin_seconds=settings.runner_margin_seconds)
    controller = Controller(lanes, monitor, maintenance, settings.grace_seconds, ingress)
    return await stack.enter_async_context(controller)
