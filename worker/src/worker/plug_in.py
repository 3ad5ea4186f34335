"""Follows the folder of runners: what was saved there is looked at a moment later."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path

from watchfiles import Change, awatch

from worker.output import Output
from worker.runner_code import is_code
from worker.runners import ENVIRONMENT_FILE
from worker.tree import PACKAGING_FILES, is_ignored_folder

#: An editor or a checkout writes several files: it is quiet for so long before anybody looks,
_QUIET_MILLISECONDS = 120
#: but never longer than this after the first change.
_MOST_MILLISECONDS = 1000
#: Without any notice the folder is looked at as often: a notice can be lost, and the folder itself replaced.
_LOOK_MILLISECONDS = 5000
#: The same where the system gives no notices.
_POLL_SECONDS = 1.0
#: Where a look takes long (a million files beside the code), the next one that nobody asked for is that much later.
_REST = 20


async def follow_changes(folder: Path, look: Callable[[], Awaitable[None]], output: Output) -> None:
    """For ever: awaits `look` whenever something may have changed."""
    told, rests_until = False, 0.0
    while True:
        try:
            async with contextlib.aclosing(notices(folder)) as changes:
                async for is_change in changes:
                    if is_change or time.monotonic() >= rests_until:
                        rests_until = time.monotonic() + _REST * await _look(look, output)
        except (OSError, RuntimeError) as error:  # RuntimeError: what the watching library does not name
            if not told and folder.is_dir():  # noqa: ASYNC240 - one look at one folder
                told = True
                output.say(f"the system does not tell of changes in {folder} ({error}); it is looked at each second")
            await asyncio.sleep(max(_POLL_SECONDS, _REST * await _look(look, output)))


async def notices(folder: Path) -> AsyncGenerator[bool, None]:
    """True at once and for each burst of changes, False now and then. Ends when the folder is another one."""
    identity = _identity(folder)
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
        if _identity(folder) != identity:
            return


def matters(folder: Path, change: Change, path: str) -> bool:
    """Whether such a change can change a runner. Folders come and go as a whole, without a word about their files."""
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


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


async def _look(look: Callable[[], Awaitable[None]], output: Output) -> float:
    """The seconds that it took."""
    started_at = time.monotonic()
    try:
        await look()
    except Exception as error:  # whatever one look stumbles over, the next change is looked at again
        output.say(f"looking at the runners failed, {type(error).__name__}: {error}; they go on as they are")
    return time.monotonic() - started_at
