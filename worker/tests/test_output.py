"""Lines on the terminal: whole, named, and JSON where a collector reads them."""

import io
import json

from worker.lines import LineSplitter
from worker.output import Output


def test_chunks_become_whole_lines() -> None:
    splitter = LineSplitter()
    assert splitter.feed("a\nbé".encode()[:-1]) == ["a"]
    assert splitter.feed("é".encode()[1:] + b"c\r\nd") == ["béc"]
    assert splitter.end() == ["d"]
    assert splitter.end() == []


def test_line_without_end_is_cut() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"x" * (LineSplitter.LIMIT + 1)) == ["x" * (LineSplitter.LIMIT + 1)]
    assert splitter.feed(b"y\n") == ["y"]


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
