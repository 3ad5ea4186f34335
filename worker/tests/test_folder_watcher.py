"""The folder of runners is watched: by notifications of the system, or by a look now and then."""

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from watchfiles import Change

from worker import folder_watcher
from worker.folder_watcher import matters, watch_folder
from worker.output import Output

Until = Callable[..., Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        (Change.modified, "text/runner_adapter.py", True),
        (Change.modified, "text/words/deep.py", True),
        (Change.modified, "text/requirements.txt", True),
        (Change.modified, "text/base.txt", True),
        (Change.modified, "text/local/pyproject.toml", True),
        (Change.modified, "text/.env", True),
        (Change.modified, ".venv/.env", False),
        (Change.deleted, "text", True),
        (Change.modified, "text/test_runner_adapter.py", False),
        (Change.modified, "text/__pycache__/runner_adapter.cpython-311.pyc", False),
        (Change.added, "text/.runner_adapter.py.swp", False),
        (Change.added, ".shout.abc/runner_adapter.py", False),
        (Change.added, "text/output.csv", False),
        (Change.modified, "text", False),
        (Change.deleted, "", True),
    ],
)
def test_what_matters(tmp_path: Path, change: Change, path: str, expected: bool) -> None:
    # Hidden folders above the folder of runners hide nothing.
    folder = tmp_path / ".hidden" / "runners"
    assert matters(folder, change, str(folder / path)) is expected


def test_folder_that_comes_as_a_whole_matters(tmp_path: Path) -> None:
    (tmp_path / "shout").mkdir()
    assert matters(tmp_path, Change.added, str(tmp_path / "shout"))


class Looks:
    """Counts the looks; the first one fails, and nothing comes of that."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1
        if self.count == 1:
            raise ValueError("an unforeseen failure")


def test_change_is_looked_at_soon_also_in_a_folder_that_was_replaced(
    tmp_path: Path, output: Output, terminal: io.StringIO, until_async: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_watcher, "_LOOK_MILLISECONDS", 300)
    runners = tmp_path / "runners"
    (runners / "text").mkdir(parents=True)

    async def scenario() -> None:
        looks = Looks()
        following = asyncio.create_task(watch_folder(runners, looks, output))
        await until_async(lambda: looks.count, 20)
        runners.rename(tmp_path / "before")
        (runners / "text").mkdir(parents=True)
        monkeypatch.setattr(folder_watcher, "_LOOK_MILLISECONDS", 60_000)
        # Only notifications of the new folder can come now, once it is watched.
        seen = 0
        while looks.count < 5:
            seen += 1
            (runners / "text" / "runner_adapter.py").write_text(f"# {seen}")
            before = looks.count
            await until_async(lambda before=before: looks.count > before, 20)
        following.cancel()
        await asyncio.wait([following], timeout=10)
        assert following.cancelled()

    asyncio.run(scenario())
    assert "looking at the runners failed, ValueError: an unforeseen failure; they go on as they are" in (
        terminal.getvalue()
    )


def test_without_notifications_the_folder_is_looked_at_each_second_and_that_is_told_once(
    tmp_path: Path, output: Output, terminal: io.StringIO, until_async: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(folder: Path) -> AsyncGenerator[bool, None]:
        raise OSError("too many watches")
        yield True

    monkeypatch.setattr(folder_watcher, "notifications", none)
    monkeypatch.setattr(folder_watcher, "_POLL_SECONDS", 0.05)

    async def scenario() -> None:
        looks = Looks()
        following = asyncio.create_task(watch_folder(tmp_path, looks, output))
        await until_async(lambda: looks.count >= 3)
        following.cancel()
        await asyncio.wait([following], timeout=10)

    asyncio.run(scenario())
    assert terminal.getvalue().count("does not tell of changes") == 1
    assert "too many watches" in terminal.getvalue()
