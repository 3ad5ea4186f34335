"""How far the making of an environment is."""

import io

from worker.build_progress import BuildProgress
from worker.output import Output


def test_a_log_gets_a_line_now_and_then_and_the_notice_once(output: Output, terminal: io.StringIO) -> None:
    progress = BuildProgress(output, line_seconds=0)
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
    progress = BuildProgress(output, line_seconds=60)
    with progress:
        for number in range(50):
            progress.step("big", f"step {number}")
    assert len(terminal.getvalue().splitlines()) == 1
