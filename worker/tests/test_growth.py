"""Nobody waits in silence for a folder that is being filled."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from worker.growth import bytes_in, growth_told


def test_the_last_step_is_told_again_with_the_size(tmp_path: Path, until_async: Callable[..., object]) -> None:
    told: list[str] = []

    async def scenario() -> None:
        async with growth_told(tmp_path / "new", told.append, seconds=0.01) as tell:
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
