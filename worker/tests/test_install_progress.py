"""How far the installation of an environment is."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

from worker.install_progress import InstallProgress, bytes_in, with_size
from worker.output import Output


def test_a_log_gets_a_line_now_and_then_and_the_notice_once(output: Output, terminal: io.StringIO) -> None:
    progress = InstallProgress(output, line_seconds=0)
    with progress:
        progress.step("big", "making it", notice="1 GB is downloaded\nand kept")
        progress.step("big", "9 MB on disk: Downloading", notice="1 GB is downloaded\nand kept")
        progress.done("big")
    assert [line.partition("│ ")[2] for line in terminal.getvalue().splitlines()] == [
        "big: setting up its virtual environment (once; later starts use it again)",
        "big: 1 GB is downloaded",
        "big: and kept",
        "big: 0 s, making it",
        "big: 0 s, 9 MB on disk: Downloading",
        "big: virtual environment ready after 0 s",
    ]


def test_steps_that_follow_each_other_at_once_make_no_lines(output: Output, terminal: io.StringIO) -> None:
    progress = InstallProgress(output, line_seconds=60)
    with progress:
        for number in range(50):
            progress.step("big", f"step {number}")
    assert len(terminal.getvalue().splitlines()) == 1


def test_the_last_step_is_told_again_with_the_size(tmp_path: Path, until_async: Callable[..., object]) -> None:
    told: list[str] = []

    async def scenario() -> None:
        async with with_size(tmp_path / "new", told.append, seconds=0.01) as tell:
            tell("unpacking")
            await until_async(lambda: "0 MB on disk: unpacking" in told)
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "file").write_bytes(bytes(3_000_000))
            await until_async(lambda: told[-1] == "3 MB on disk: unpacking")
        count = len(told)
        await asyncio.sleep(0.05)
        assert len(told) == count

    asyncio.run(scenario())
    assert told[0] == "unpacking"


def test_links_do_not_count_as_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert 5000 <= bytes_in(tmp_path) < 6000
