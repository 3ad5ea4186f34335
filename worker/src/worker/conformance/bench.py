"""What every check has at hand: the runner, the subject, and the calls of the contract."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runnerlib.contract import (
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_ID,
    BatchEntry,
    new_task_id,
    strict_json,
)
from worker.conformance.asking import Answer, Asker
from worker.conformance.errors import Broken
from worker.conformance.subject import Subject

_ENTRIES = TypeAdapter(list[BatchEntry])
_NAP_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take."""

    #: any answer that waits for nothing; also for a runner that is full to have room again
    answer_seconds: float = 30
    #: a slow run, beyond that
    slow_seconds: float = 60
    #: a wait that is over before a slow run is
    short_wait_seconds: float = 0.3
    #: how much later a second caller comes
    later_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Bench:
    asker: Asker
    subject: Subject
    pace: Pace = Pace()

    async def run(
        self, payload: Any, id: str | None = None, attempt: int = 1, wait_seconds: float | None = None
    ) -> Answer:
        """``POST /run/{algorithm}``; a runner that is full is asked again, as a controller would."""
        headers = _headers(id, attempt, wait_seconds)
        return await self._post(
            f"/run/{self.subject.algorithm}", strict_json.dumps(payload), headers, wait_seconds or 0
        )

    async def begin(self, payload: Any, id: str) -> Answer:
        """The same, not waited for; and a runner that is full is not asked again."""
        body = strict_json.dumps(payload)
        return await self.asker.post(f"/run/{self.subject.algorithm}", body, _headers(id, 1, 0))

    async def batch(self, items: list[dict[str, Any]], wait_seconds: float = 20) -> list[BatchEntry]:
        """``POST /batch/{algorithm}``: its entries, one for each item in the same order, or Broken."""
        path = f"/batch/{self.subject.algorithm}"
        headers = {"Prefer": f"wait={wait_seconds:g}"}
        answer = await self._post(path, strict_json.dumps(items), headers, wait_seconds)
        if answer.status != 200:
            raise Broken(f"it answered {answer}")
        try:
            entries = _ENTRIES.validate_python(answer.json())
        except ValidationError as error:
            raise Broken(f"its answer is no list of entries: {error.errors()[0]['msg']}") from None
        asked = [(item["id"], item["attempt"]) for item in items]
        if [(entry.id, entry.attempt) for entry in entries] != asked:
            raise Broken("its entries are not those of the items, in their order")
        return entries

    async def ended(self, items: list[dict[str, Any]]) -> list[BatchEntry]:
        """The same until all have ended: those that have not are asked for again, without a payload."""
        entries = await self.batch(items)
        deadline = time.monotonic() + self.pace.slow_seconds
        while any(not entry.state.is_final for entry in entries):
            if time.monotonic() > deadline:
                raise Broken(f"a run has not ended within {self.pace.slow_seconds:g} s")
            entries = await self.batch([{"id": entry.id, "attempt": entry.attempt} for entry in entries])
        return entries

    async def task(self, id: str) -> BatchEntry:
        """``GET /tasks/{id}`` of a task that the runner must know, or Broken."""
        answer = await self.asker.get(f"/tasks/{id}")
        if answer.status != 200:
            raise Broken(f"GET /tasks/{{id}} of a run that it has was answered {answer}")
        try:
            return BatchEntry.model_validate(answer.json())
        except ValidationError as error:
            raise Broken(f"GET /tasks/{{id}} gave no entry: {error.errors()[0]['msg']}") from None

    async def until(self, id: str, condition: Callable[[BatchEntry], bool], what: str, seconds: float) -> BatchEntry:
        """Looks at a task again and again."""
        deadline = time.monotonic() + seconds
        while not condition(entry := await self.task(id)):
            if time.monotonic() > deadline:
                raise Broken(f"{what} within {seconds:g} s; its state is {entry.state.value}")
            await asyncio.sleep(_NAP_SECONDS)
        return entry

    @asynccontextmanager
    async def slow_run(self, id: str, attempt: int = 1) -> AsyncIterator["asyncio.Task[Answer]"]:
        """A run of the slow payload, which has begun; it is cancelled in the end, if it can be."""
        call = asyncio.create_task(self.run(self.subject.slow, id, attempt, self.pace.slow_seconds))
        try:
            await self._begun(id, call)
            yield call
        finally:
            call.cancel()
            await self.cancelled(id)
            with contextlib.suppress(Broken, asyncio.CancelledError):
                await call

    async def cancelled(self, *ids: str) -> None:
        """Cancels what still runs and waits until it has ended: the next check needs the room. Never fails."""
        for id in ids:
            with contextlib.suppress(Broken):
                await self.asker.delete(f"/tasks/{id}")
        for id in ids:
            with contextlib.suppress(Broken):
                await self.until(id, lambda entry: entry.state.is_final, "it did not end", self.pace.answer_seconds)

    async def _begun(self, id: str, call: "asyncio.Task[Answer]") -> None:
        deadline = time.monotonic() + self.pace.answer_seconds
        while (answer := await self.asker.get(f"/tasks/{id}")).status != 200 or answer.json().get("state") == "waiting":
            if call.done():
                raise Broken(f"a run of the slow payload was answered {call.result()} before anybody saw it run")
            if time.monotonic() > deadline:
                raise Broken(f"GET /tasks/{{id}} does not show a run that was begun: {answer}")
            await asyncio.sleep(_NAP_SECONDS)
        if call.done():
            raise Broken("the slow payload was done at once; give one that takes 3 to 20 seconds")

    async def _post(self, path: str, body: bytes, headers: dict[str, str], wait_seconds: float) -> Answer:
        deadline = time.monotonic() + self.pace.answer_seconds
        while True:
            answer = await self.asker.post(path, body, headers, wait_seconds=wait_seconds)
            if answer.status not in (429, 503) or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(_NAP_SECONDS)


def _headers(id: str | None, attempt: int, wait_seconds: float | None) -> dict[str, str]:
    headers = {} if id is None else {HEADER_TASK_ID: id, HEADER_TASK_ATTEMPT: str(attempt)}
    return headers if wait_seconds is None else {**headers, "Prefer": f"wait={wait_seconds:g}"}


def item(payload: Any, id: str | None = None, attempt: int = 1) -> dict[str, Any]:
    """One run of a batch."""
    return {"id": id or new_task_id(), "attempt": attempt, "payload": payload}
