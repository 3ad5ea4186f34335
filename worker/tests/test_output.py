"""Lines on the terminal: named, and JSON where a collector reads them."""

import io
import json
import os

import pytest

from worker.output import InstallProgress, NonBlockingStream, Output


def test_what_is_not_json_is_wrapped_when_json_is_wanted() -> None:
    stream = io.StringIO()
    output = Output(stream, as_json=True)
    output.line("core", '{"event": "ready"}')
    output.line("text", "printed by an author")
    output.say("done")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "ready"},
        {"service": "text", "event": "printed by an author"},
        {"service": "worker", "event": "done"},
    ]


def test_brackets_of_authors_are_no_markup() -> None:
    stream = io.StringIO()
    Output(stream).line("text", "[bold]kept[/bold]")
    assert "[bold]kept[/bold]" in stream.getvalue()


def test_reader_that_does_not_read_keeps_nobody_waiting_and_learns_what_is_missing() -> None:
    ours, theirs = os.pipe()
    stream = NonBlockingStream(theirs, as_json=True)
    for number in range(80_000):
        stream.write(json.dumps({"event": number, "more": "x" * 80}) + "\n")
    stream.drain(0.01)
    with os.fdopen(ours, "rb") as reader:
        first = json.loads(reader.readline())
        stream.write('{"event": "last"}\n')
        lines = iter(reader)
        missing = next(line for line in lines if b"are missing here" in line)
    assert first["event"] == 0
    assert json.loads(missing)["service"] == "worker"
    # It still writes; the next test may get the same descriptor.
    stream.drain()
    os.close(theirs)


def test_full_disk_loses_lines_and_nothing_else() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stream = NonBlockingStream(full)
    Output(stream).say("lost")  # type: ignore[arg-type]
    stream.drain()
    os.dup2(os.memfd_create("disk"), full)
    Output(stream).say("kept")  # type: ignore[arg-type]
    stream.drain()
    written = os.pread(full, 1000, 0).decode()
    assert "1 lines are missing here" in written
    assert written.endswith("worker     │ kept\n")
    os.close(full)


def test_a_log_gets_a_line_now_and_then_and_the_notice_once(output: Output, terminal: io.StringIO) -> None:
    progress = InstallProgress(output, line_seconds=0)
    with progress.installing("big", notice="1 GB is downloaded\nand kept") as report:
        report("making it")
        report("9 MB on disk: Downloading")
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
    with pytest.raises(OSError, match="full"), progress.installing("big") as report:
        for number in range(50):
            report(f"step {number}")
        raise OSError("full")
    assert len(terminal.getvalue().splitlines()) == 1


def test_an_environment_that_is_there_already_makes_no_lines(output: Output, terminal: io.StringIO) -> None:
    with InstallProgress(output).installing("big", "1 GB is downloaded"):
        pass
    assert terminal.getvalue() == ""
