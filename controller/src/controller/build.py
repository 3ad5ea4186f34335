"""Puts a controller together on an exit stack, in a process of its own or beside the gateway."""

import random
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from controller.call import CallContext
from controller.commit_gate import CommitGate
from controller.completer import Completer
from controller.consumer import ConsumerDependencies
from controller.consumer_set import ConsumerSet
from controller.directory import CatalogueSource, RunnerDirectory
from controller.ingress import IngressConsumer
from controller.maintenance import Maintenance, RunMonitor
from controller.metrics import ControllerMetrics
from controller.outcomes import OutcomePolicy
from controller.runner_client import RunnerClient
from controller.runs import InFlight
from controller.settings import ControllerSettings
from controller.unknown_fields import UnknownFieldWarnings
from runnerlib.service.health import Health
from runnerlib.service.lifecycle import background
from runnerlib.service.tls import client_trust
from taskqueue.clock import GuardedWall
from taskqueue.pauses import PauseWatch
from taskqueue.protocols import IngressFeed, Ledger, Sweeper, TaskQueue, TaskStore


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
    door: IngressFeed | None = None,
    ledger: Ledger | None = None,
) -> None:
    """Starts a controller on `stack`. Leaving it stops in order, and hands back, uncounted, what outlasts the grace.

    The queue, the store and the watch must have been entered before, so that they are left after it. `sweeper` finds
    waiting tasks that no controller will take: the queue itself where it is a table, else the store. `door` is a
    broker's ingress; it belongs to the controller from now on. `ledger` keeps those of its tasks that wait for turns.
    """
    metrics, directory = ControllerMetrics(registry), RunnerDirectory(watch)
    in_flight, unknown_fields = InFlight(), UnknownFieldWarnings()
    metrics.count_in_flight(lambda: len(in_flight))
    gate, wall, margin = CommitGate(health), GuardedWall(), settings.runner_margin_seconds
    completer = Completer(queue, store, gate, in_flight, metrics, lambda name: name in directory.algorithms())
    trust = client_trust(settings.ca_certificates_file)
    client = await stack.enter_async_context(RunnerClient(margin, settings.keys, trust))
    policy = OutcomePolicy(settings.retry_steps_seconds, random.Random(), wall)  # noqa: S311 - jitter, nothing secret
    calls = CallContext(client, directory, completer, policy, metrics, margin, wall)
    pauses = PauseWatch(store, lambda: consumers.wake_all())
    dependencies = ConsumerDependencies(queue, gate, in_flight, unknown_fields, calls, pauses)
    consumers = ConsumerSet(directory, watch, dependencies, health)
    # Left in reverse order: nothing new is taken, and runs are followed until the last call has ended.
    RunMonitor(store, in_flight, client, completer, margin_seconds=margin).start(stack)
    stack.push_async_callback(consumers.stop, settings.grace_seconds)
    Maintenance(sweeper, store, gate, directory, completer, settings, consumers.pending_reasons, wall).start(stack)
    background(stack, pauses.watch(), "pauses")
    background(stack, consumers.follow_catalogue(), "catalogue")
    if door is not None and ledger is not None:
        parts = door, ledger, completer, directory, health, metrics, settings, unknown_fields, wall
        await stack.enter_async_context(IngressConsumer(*parts))
