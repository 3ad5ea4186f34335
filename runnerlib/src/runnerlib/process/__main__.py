"""Entry point of a worker process; arguments: descriptors of a socket and a pipe, and the parent's process id."""

from runnerlib.import_path import put_current_folder_last

if __name__ == "__main__":
    put_current_folder_last()

import asyncio
import ctypes
import faulthandler
import gc
import io
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from runnerlib.adapter.errors import AdapterError, clean
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.session import LoadError, SelfTestFailed, Session
from runnerlib.fetching.addresses import FetchRules
from runnerlib.frames import LOAD_FAILED, READY, encode
from runnerlib.leftovers import OwnFolder
from runnerlib.process.calls import AsyncCalls, SyncCalls, close_loop, run_to_its_end
from runnerlib.process.ipc import WorkerConnection
from runnerlib.service.logs import configure_logging

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_OOM_SCORE_OF_WORKERS = "500"


@dataclass(frozen=True)
class _Logging:
    log_level: str
    log_format: str


def main(calls: int, answers: int, parent: int) -> int:
    """Serves calls until told to stop; returns the exit code."""
    _die_with(parent)
    _leave_signals_to_parent()
    _offer_memory_first()
    faulthandler.enable()
    # What an author prints belongs with the logs, and there at once: the process may die.
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    connection = WorkerConnection(socket.socket(fileno=calls), answers, parent)
    setup = json.loads(connection.first())
    configure_logging(setup["service"], _Logging(setup["log_level"], setup["log_format"]))
    try:
        return _serve(connection, setup)
    except (AdapterError, LoadError, SelfTestFailed) as error:
        connection.send(encode(LOAD_FAILED, body=clean(str(error)).encode()))
        return 1


def _serve(connection: WorkerConnection, setup: dict[str, Any]) -> int:
    sys.path[:] = setup["import_path"]
    adapter = load_adapter(Path(setup["adapter"]), setup["overrides"])
    fetch_rules = FetchRules(**setup["fetch_rules"])
    folder = OwnFolder(setup["temporary_folder"])
    with Session(adapter, setup["algorithms"], setup["device"], fetch_rules=fetch_rules) as session:
        if setup["is_async"]:
            _serve_async(connection, session, setup, folder)
        else:
            calls = SyncCalls(session, connection, setup["watch_rss"], folder)
            connection.deliver_to(calls.on_frames)
            if setup["self_test"]:
                for name in session.algorithms:
                    session.self_test(name)
            _ready(connection, folder)
            calls.serve()
    return 0


def _serve_async(connection: WorkerConnection, session: Session, setup: dict[str, Any], folder: OwnFolder) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    calls = AsyncCalls(session, connection, setup["watch_rss"], loop, folder)
    connection.deliver_to(calls.on_frames)
    try:
        if setup["self_test"]:
            for name in session.algorithms:
                run_to_its_end(loop, session.self_test_async(name))
        _ready(connection, folder)
        calls.serve()
    finally:
        close_loop(loop)


def _ready(connection: WorkerConnection, folder: OwnFolder) -> None:
    folder.keep_what_is_there()
    # What is loaded now stays: the collector need not scan it again and again.
    gc.collect()
    gc.freeze()
    connection.send(encode(READY))


def _die_with(parent: int) -> None:
    """Never outlives the serving process. On Linux the kernel ends this one, whatever a handler does; elsewhere it ends
    when the socket does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel was asked.
        os._exit(1)


def _offer_memory_first() -> None:
    """When memory runs out, the kernel is to kill a worker process and not the serving process."""
    with suppress(OSError):
        _OOM_SCORE.write_text(_OOM_SCORE_OF_WORKERS)


def _leave_signals_to_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the serving process decides what happens to the runs.

    Handlers, not SIG_IGN: that would be inherited by what an author starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return None


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4])))
