"""Entry point of a worker process; arguments: the socket's file descriptor and the parent's process id."""

from runnerlib.import_path import put_current_folder_last

if __name__ == "__main__":
    put_current_folder_last()

import asyncio
import faulthandler
import gc
import io
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runnerlib.adapter.errors import AdapterError
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.session import LoadError, SelfTestFailed, Session
from runnerlib.fetching.addresses import FetchRules
from runnerlib.frames import encode
from runnerlib.leftovers import OwnFolder
from runnerlib.process.async_calls import AsyncCalls, close_loop, run_to_its_end
from runnerlib.process.channel import Channel
from runnerlib.process.parent import die_with, leave_signals_to_parent, offer_memory_first
from runnerlib.process.sync_calls import SyncCalls
from runnerlib.service.logs import configure_logging


@dataclass(frozen=True)
class _Logging:
    log_level: str
    log_format: str


def main(descriptor: int, parent: int) -> int:
    die_with(parent)
    leave_signals_to_parent()
    offer_memory_first()
    faulthandler.enable()
    # What an author prints belongs with the logs, and there at once: the process may die.
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    channel = Channel(socket.socket(fileno=descriptor), parent)
    setup, _ = channel.first()
    configure_logging(setup["service"], _Logging(setup["log_level"], setup["log_format"]))
    try:
        return _serve(channel, setup)
    except (AdapterError, LoadError, SelfTestFailed) as error:
        channel.send(encode({"kind": "failed", "reason": str(error)}))
        return 1


def _serve(channel: Channel, setup: dict[str, Any]) -> int:
    sys.path[:] = setup["import_path"]
    adapter = load_adapter(Path(setup["adapter"]), setup["overrides"])
    fetch_rules = FetchRules(**setup["fetch_rules"])
    folder = OwnFolder(setup["temporary_folder"])
    with Session(adapter, setup["algorithms"], setup["device"], fetch_rules=fetch_rules) as session:
        if setup["is_async"]:
            _serve_async(channel, session, setup, folder)
        else:
            calls = SyncCalls(session, channel, setup["watch_rss"], folder)
            channel.deliver_to(calls.on_frames)
            if setup["self_test"]:
                for name in session.algorithms:
                    session.self_test(name)
            _ready(channel, folder)
            calls.serve()
    return 0


def _serve_async(channel: Channel, session: Session, setup: dict[str, Any], folder: OwnFolder) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    calls = AsyncCalls(session, channel, setup["watch_rss"], loop, folder)
    channel.deliver_to(calls.on_frames)
    try:
        if setup["self_test"]:
            for name in session.algorithms:
                run_to_its_end(loop, session.self_test_async(name))
        _ready(channel, folder)
        calls.serve()
    finally:
        close_loop(loop)


def _ready(channel: Channel, folder: OwnFolder) -> None:
    folder.keep_what_is_there()
    # What is loaded now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    channel.send(encode({"kind": "ready"}))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
