"""Puts a controller together on an exit stack, in a process of its own or beside the gateway."""

import random
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from controller.call_tools import Tools
from controller.controller import Controller
from controller.doorkeeper import Doorkeeper
from controller.fleet import CatalogueSource, Fleet
from controller.inflight import InFlight
from controller.intake import Intake, UnknownFieldWarnings
from controller.lane_set import LaneSet
from controller.lanes import LaneTools
from controller.metrics import ControllerMetrics
from controller.retry import RetryPolicy
from controller.runner_client import RunnerClient
from controller.settings import ControllerSettings
from controller.settling import Settler
from controller.store_gate import STORE, StoreGate
from controller.tending import Tending
from controller.turned_away import TurnedAway
from controller.upkeep import Upkeep
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
    metrics, in_flight, fleet = ControllerMetrics(registry), InFlight(), Fleet(watch)
    metrics.count_in_flight(lambda: len(in_flight))
    gate, wall, unknown_fields = StoreGate(health), GuardedWall(), UnknownFieldWarnings()
    settler = Settler(queue, store, gate, in_flight, metrics, lambda name: name in fleet.algorithms())
    client = await stack.enter_async_context(RunnerClient(settings.runner_margin_seconds))
    policy = RetryPolicy(settings.retry_steps_seconds, random.Random())  # noqa: S311 - jitter, nothing secret
    lane_tools = LaneTools(
        queue=queue,
        gate=gate,
        intake=Intake(store, gate, settler, in_flight, wall, unknown_fields),
        in_flight=in_flight,
        calls=Tools(client, fleet, settler, policy, metrics, settings.runner_margin_seconds, wall),
    )
    lanes = LaneSet(fleet, watch, lane_tools, health)
    upkeep = Upkeep(
        sweeper,
        store,
        gate,
        fleet,
        settler,
        held_up=lanes.held_up,
        unknown_grace_seconds=settings.unknown_algorithm_grace_seconds,
        retention_seconds=settings.retention_days * _SECONDS_A_DAY,
        clock=wall,
    )
    health.set(STORE, True)
    doorkeeper = None
    if door is not None:
        doorkeeper = Doorkeeper(
            door,
            settler,
            TurnedAway(door, store, gate, settler),
            fleet,
            health,
            metrics,
            unknown_grace_seconds=settings.unknown_algorithm_grace_seconds,
            max_message_bytes=settings.max_message_bytes,
            clock=wall,
            unknown_fields=unknown_fields,
        )
    tending = Tending(store, in_flight, client, settler, margin_seconds=settings.runner_margin_seconds)
    controller = Controller(lanes, tending, upkeep, settings.grace_seconds, doorkeeper)
    return await stack.enter_async_context(controller)
