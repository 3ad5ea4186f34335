"""Sends sample tasks for every algorithm through the queue and shows what became of them."""

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from runnerlib.contract import AlgorithmDescription, Catalogue, TaskState, TaskView
from worker.errors import StartFailed
from worker.gateway_client import GatewayClient
from worker.output import Output
from worker.samples import payloads_for, read_samples
from worker.up import Environment

#: How often a start in progress is looked at.
_LOOK_SECONDS = 0.1
#: Longer values are cut in the table.
_CELL_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """One sample task at its end; `view` is None when it did not end in time."""

    algorithm: str
    payload: Any
    view: TaskView | None
    milliseconds: float

    @property
    def succeeded(self) -> bool:
        return self.view is not None and self.view.state is TaskState.SUCCEEDED


class Demo:
    """One demonstration in a running environment."""

    def __init__(self, environment: Environment, output: Output, *, task_seconds: float = 60) -> None:
        self._environment = environment
        self._output = output
        self._task_seconds = task_seconds

    async def run(self) -> bool:
        """Shows the table. True when every runner came up and every task succeeded."""
        layout = self._environment.layout
        async with GatewayClient(layout.gateway_url, layout.discovery_url) as client:
            missing = await self._wait_for_runners(client)
            catalogue = await client.catalogue()
            descriptions = [self._view(catalogue, name) for name in self._algorithms(catalogue)]
            outcomes = await self._send_samples(client, descriptions)
        self._show(outcomes)
        for name in missing:
            self._output.say(f"{name} did not come up; its lines above say why")
        self._show_addresses()
        return bool(outcomes) and not missing and all(outcome.succeeded for outcome in outcomes)

    async def _wait_for_runners(self, client: GatewayClient) -> list[str]:
        """Until each runner is ready, registered, and known to the gateway. Returns those that will not be."""
        deadline = time.monotonic() + self._environment.layout.settings.load_seconds
        while True:
            catalogue = await client.catalogue()
            here = {runner.host for runner in catalogue.runners.values()}
            hopeless = [r.plan.name for r in self._environment.runners if r.has_given_up]
            absent = [r.plan.name for r in self._environment.runners if not (r.is_ready and r.plan.url in here)]
            if set(absent) <= set(hopeless) and set(self._algorithms(catalogue)) <= await _known_to(client):
                return [*self._environment.broken, *hopeless]
            if time.monotonic() > deadline:
                if not here:
                    raise StartFailed("no runner has registered; the lines above say why")
                return [*self._environment.broken, *absent]
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
        samples = read_samples()
        pairs = []
        for description in descriptions:
            payloads = payloads_for(description, samples)
            if not payloads:
                self._output.say(f"{description.name} has no example; give its docstring a doctest to see it here")
            pairs += [(description.name, payload) for payload in payloads]
        self._output.say(f"sending {len(pairs)} tasks through the queue")
        return list(await asyncio.gather(*(self._send(client, name, payload) for name, payload in pairs)))

    async def _send(self, client: GatewayClient, algorithm: str, payload: Any) -> Outcome:
        submitted = await client.submit(algorithm, payload)
        told = -1.0
        while True:
            view = await client.look(submitted.id)
            spent = time.monotonic() - submitted.at
            if view.state.is_terminal:
                return Outcome(algorithm, payload, view, spent * 1000)
            if spent > self._task_seconds:
                return Outcome(algorithm, payload, None, spent * 1000)
            if view.progress is not None and view.progress.fraction > told:
                told = view.progress.fraction
                self._output.say(f"{algorithm}: {told:.0%} {view.progress.message}")

    def _show(self, outcomes: list[Outcome]) -> None:
        table = Table("algorithm", "payload", "result", "ms", "runner", title="Through the queue and back")
        table.columns[3].justify = "right"
        for outcome in outcomes:
            view = outcome.view
            runner = view.runner if view is not None and view.runner is not None else "-"
            cells = (
                outcome.algorithm,
                _short(outcome.payload),
                _result(outcome),
                f"{outcome.milliseconds:.0f}",
                runner,
            )
            table.add_row(*cells, style=None if outcome.succeeded else "red")
        self._output.show(table)

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
    return _short(outcome.view.result)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 1] + "…"
