"""Sends ordinary tasks all the time, while something happens to the environment; each must end as if nothing had."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from environments import Environment
from token_senders import ADMIN_TOKEN

from producer import TaskClient

PAUSE_SECONDS = 0.02
#: Longer than any service takes to start on a busy machine.
PATIENCE_SECONDS = 60.0
END_SECONDS = 90.0


class HonestSender:
    """Of tasks of the steady runner; `ids` are those that were taken."""

    def __init__(self, environment: Environment) -> None:
        self.ids: list[str] = []
        #: how long each took to be taken
        self.seconds: list[float] = []
        self._environment = environment
        self._failure: BaseException | None = None

    @contextmanager
    def sending(self, at_least: int = 20) -> Iterator["HonestSender"]:
        """Checks at the end that each task has succeeded at its first attempt."""
        over = threading.Event()
        thread = threading.Thread(target=self._send, args=[over, at_least])
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
        self._check()

    def _client(self) -> TaskClient:
        token = ADMIN_TOKEN if self._environment.keys else ""
        return TaskClient(self._environment.core.url, token=token, patience_seconds=PATIENCE_SECONDS)

    def _send(self, over: threading.Event, at_least: int) -> None:
        try:
            with self._client() as client:
                while not over.wait(PAUSE_SECONDS) or len(self.ids) < at_least:
                    began = time.monotonic()
                    self.ids.append(client.submit("square", {"number": len(self.ids)}))
                    self.seconds.append(time.monotonic() - began)
        except BaseException as error:
            self._failure = error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        with self._client() as client:
            views = [client.wait(task_id, END_SECONDS) for task_id in self.ids]
        told = {(view.state.value, view.attempt) for view in views}
        assert told == {("succeeded", 1)}, told
        wrong = [(number, view.result) for number, view in enumerate(views) if view.result != number**2]
        assert wrong == [], wrong[:10]
