"""Watches the folder of runners: what was saved there is looked at a moment later."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path

from watchfiles import Change, awatch

from worker.output import Output
from worker.runner_code import PACKAGING_FILES, identity, is_code, is_ignored_folder
from worker.runners import ENVIRONMENT_FILE

#: An editor or a checkout writes several files: a look waits until it has been quiet for so long,
_QUIET_MILLISECONDS = 120
#: but at most this long after the first change.
_MOST_MILLISECONDS = 1000
#: How often to look without any notification: one can be lost, and the folder itself replaced.
_LOOK_MILLISECONDS = 5000
#: The same where the system gives no notifications.
_POLL_SECONDS = 1.0
#: Where a look takes long (a million files beside the code), the next unprompted one is this many times as much later.
_REST = 20


async def watch_folder(folder: Path, look: Callable[[], Awaitable[None]], output: Output) -> None:
    """Awaits `look` whenever something may have changed. Never returns."""
    told, rests_until = False, 0.0
    while True:
        try:
            async with contextlib.aclosing(notifications(folder)) as changes:
                async for is_change in changes:
                    if is_change or time.monotonic() >= rests_until:
                        rests_until = time.monotonic() + _REST * await _look(look, output)
        except (OSError, RuntimeError) as error:  # RuntimeError: what the watching library does not name
            if not told and folder.is_dir():  # noqa: ASYNC240 - one look at one folder
                told = True
                output.say(f"the system does not tell of changes in {folder} ({error}); it is looked at each second")
            await asyncio.sleep(max(_POLL_SECONDS, _REST * await _look(look, output)))


async def notifications(folder: Path) -> AsyncGenerator[bool, None]:
    """Yields True at first and after each burst of changes, False now and then. Ends if the folder was replaced."""
    followed = identity(folder)
    yield True
    async for changes in awatch(
        folder,
        watch_filter=partial(matters, folder),
        debounce=_MOST_MILLISECONDS,
        step=_QUIET_MILLISECONDS,
        rust_timeout=_LOOK_MILLISECONDS,
        yield_on_timeout=True,
    ):
        yield bool(changes)
        if identity(folder) != followed:
            return


def matters(folder: Path, change: Change, path: str) -> bool:
    """Whether such a change can change a runner. Folders come and go as a whole, without changes of their files."""
    parts = Path(os.path.relpath(path, folder)).parts
    # No parts: the folder of runners itself.
    name = parts[-1] if parts else ""
    if any(is_ignored_folder(part) for part in parts[:-1]):
        return False
    if name == ENVIRONMENT_FILE:
        return True
    if is_ignored_folder(name):
        return False
    if not parts or is_code(name) or name in PACKAGING_FILES or name.endswith((".txt", ".whl")):
        return True
    return change is Change.deleted or (change is Change.added and Path(path).is_dir())


async def _look(look: Callable[[], Awaitable[None]], output: Output) -> float:
    """Returns the seconds that it took."""
    started_at = time.monotonic()
    try:
        await look()
    except Exception as error:  # whatever one look stumbles over, the next change is looked at again
        output.say(f"looking at the runners failed, {type(error).__name__}: {error}; they go on as they are")
    return time.monotonic() - started_at
