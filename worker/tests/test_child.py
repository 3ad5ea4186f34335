"""Whole lines from what a process writes."""

from worker.child import LineSplitter


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
