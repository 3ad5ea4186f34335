"""Sends sample tasks for every algorithm through the queue and shows what became of them."""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from producer.printable import one_line
from runnerlib.contract import AlgorithmDescription, Catalogue, TaskState, TaskView
from worker.errors import StartFailed
from worker.gateway_client import GatewayClient
from worker.output import Output
from worker.processes import explained
from worker.samples import Sample, payloads_for, read_samples
from worker.shortened import shortened
from worker.up import Environment

#: How often a start in progress is looked at.
_LOOK_SECONDS = 0.1
#: What is ready waits so long for runners that are not, and is then shown first.
_PATIENCE_SECONDS = 15.0
#: Longer values are shortened in the table.
_PAYLOAD_CHARACTERS, _RESULT_CHARACTERS = 44, 67
#: A message of an error may be long.
_CELL = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """One sample task at its end; `view` is None when it did not end in time."""

    sample: Sample
    view: TaskView | None
    milliseconds: float

    @property
    def succeeded(self) -> bool:
        return self.view is not None and self.view.state is TaskState.SUCCEEDED

    @property
    def failed_on_purpose(self) -> bool:
        return self.sample.fails and self.view is not None and self.view.state is TaskState.FAILED

    @property
    def is_as_expected(self) -> bool:
        return self.failed_on_purpose if self.sample.fails else self.succeeded


class Demo:
    """One demonstration in a running environment; `more` is sent besides what every algorithm has as an example."""

    def __init__(
        self, environment: Environment, output: Output, more: Sequence[Sample] = (), *, task_seconds: float = 60
    ) -> None:
        self._environment = environment
        self._output = output
        self._more = more
        self._task_seconds = task_seconds

    async def run(self) -> bool:
        """Shows the table, and another one for runners that take longer. True when every runner came up and every task
        became what it should.
        """
        layout = self._environment.layout
        outcomes: list[Outcome] = []
        shown: set[str] = set()
        async with GatewayClient(layout.gateway_url, layout.discovery_url) as client:
            while True:
                missing, late = await self._wait_for_runners(client, shown)
                catalogue = await client.catalogue()
                names = [name for name in self._algorithms(catalogue) if name not in shown]
                shown.update(names)
                fresh = await self._send_samples(client, [self._view(catalogue, name) for name in names])
                outcomes += fresh
                if fresh or not outcomes:
                    self._show(fresh)
                if not late:
                    break
                self._output.say(f"not ready yet, and shown when it is: {', '.join(late)}")
        self._explain(outcomes, missing)
        self._show_addresses()
        return bool(outcomes) and not missing and all(outcome.is_as_expected for outcome in outcomes)

    async def _wait_for_runners(self, client: GatewayClient, shown: Collection[str]) -> tuple[list[str], list[str]]:
        """Until each runner is registered and known to the gateway, or some are that were not `shown` and the others
        let wait. Returns those that will not be, and those that may.

        A runner registers once everything of it has loaded or failed to: with what works.
        """
        load_seconds = self._environment.layout.settings.load_seconds
        began_at = changed_at = time.monotonic()
        before: set[str] = set()
        while True:
            catalogue = await client.catalogue()
            here = {(runner.host, runner.boot) for runner in catalogue.runners.values()}
            hopeless = [r.plan.name for r in self._environment.runners if r.has_given_up]
            absent = [r.plan.name for r in self._environment.runners if (r.plan.url, r.boot) not in here]
            coming = self._environment.coming
            offered = set(self._algorithms(catalogue))
            is_known = offered <= await _known_to(client)
            now = time.monotonic()
            if coming:
                began_at = now
            if offered != before:
                before, changed_at = offered, now
            late = [*coming, *(name for name in absent if name not in hopeless)]
            if is_known and not late:
                return [*self._environment.broken, *hopeless], []
            if is_known and offered - set(shown) and now - changed_at > _PATIENCE_SECONDS:
                return [], late
            if now - began_at > load_seconds:
                if not here:
                    raise StartFailed("no runner has registered; the lines above say why")
                return [*self._environment.broken, *absent], []
            await asyncio.sleep(_LOOK_SECONDS)

    def _algorithms(self, catalogue: Catalogue) -> list[str]:
        """What the runners of this environment offer now."""
        ours = {runner.plan.url for runner in self._environment.runners}
        names = {name for runner in catalogue.runners.values() if runner.host in ours for name in runner.algorithms}
        return sorted(names)

    @staticmethod
    def _view(catalogue: Catalogue, name: str) -> AlgorithmDescription:
        return catalogue.algorithms[name].description

    async def _send_samples(self, client: GatewayClient, descriptions: Iterable[AlgorithmDescription]) -> list[Outcome]:
        known = read_samples()
        samples = []
        for description in descriptions:
            payloads = payloads_for(description, known)
            if not payloads:
                self._output.say(f"{description.name} has no example; give its docstring a doctest to see it here")
            samples += [Sample(description.name, payload, payload) for payload in payloads]
            samples += [sample for sample in self._more if sample.algorithm == description.name]
        if samples:
            self._output.say(f"sending {len(samples)} tasks through the queue")
        return list(await asyncio.gather(*(self._send(client, sample) for sample in samples)))

    async def _send(self, client: GatewayClient, sample: Sample) -> Outcome:
        submitted = await client.submit(sample.algorithm, sample.payload)
        told = -1.0
        while True:
            view = await client.look(submitted.id)
            spent = time.monotonic() - submitted.at
            if view.state.is_terminal:
                return Outcome(sample, view, spent * 1000)
            if spent > self._task_seconds:
                return Outcome(sample, None, spent * 1000)
            if view.progress is not None and view.progress.fraction > told:
                told = view.progress.fraction
                self._output.say(f"{sample.algorithm}: {told:.0%} {view.progress.message}")

    def _show(self, outcomes: list[Outcome]) -> None:
        table = Table("algorithm", "payload", "result", "ms", "runner", title="Through the queue and back")
        # A long failure must not take the room of what is beside it.
        table.columns[1].max_width = _PAYLOAD_CHARACTERS
        table.columns[3].justify = "right"
        for outcome in outcomes:
            view = outcome.view
            runner = view.runner if view is not None and view.runner is not None else "-"
            cells = (
                outcome.sample.algorithm,
                shortened(outcome.sample.shown, _PAYLOAD_CHARACTERS),
                _result(outcome),
                f"{outcome.milliseconds:.0f}",
                runner,
            )
            # What authors and runners wrote is no markup.
            table.add_row(*(Text(one_line(cell, _CELL)) for cell in cells), style=None if outcome.succeeded else "red")
        self._output.show(table)

    def _explain(self, outcomes: Sequence[Outcome], missing: Sequence[str]) -> None:
        for outcome in outcomes:
            if outcome.failed_on_purpose:
                shown = shortened(outcome.sample.shown, _PAYLOAD_CHARACTERS)
                self._output.say(f"{shown} is wrong on purpose; what is kept of such a task: producer dead list")
        for name in missing:
            self._output.say(f"{name} did not come up; its lines above say why")
        for runner in self._environment.runners:
            if not runner.is_ready and runner.plan.name not in missing:
                for sentence in explained(runner.reasons, runner.plan.name):
                    self._output.say(sentence)

    def _show_addresses(self) -> None:
        layout = self._environment.layout
        addresses = {"gateway": layout.gateway_url, "discovery": layout.discovery_url}
        addresses |= {runner.plan.name: runner.plan.url for runner in self._environment.runners}
        table = Table.grid(padding=(0, 2))
        for name, url in addresses.items():
            table.add_row(name, f"{url}/docs")
        self._output.show(table)


async def _known_to(client: GatewayClient) -> set[str]:
    """Algorithms that the gateway accepts: its view of the catalogue may be a moment behind."""
    return {algorithm.name for algorithm in (await client.status()).algorithms if algorithm.runners}


def _result(outcome: Outcome) -> str:
    if outcome.view is None:
        return "not finished in time"
    if outcome.view.error is not None:
        return f"{outcome.view.state.value}: {outcome.view.error.code.value}: {outcome.view.error.message}"
    return shortened(outcome.view.result, _RESULT_CHARACTERS)
