"""Files that can be read again, and streams that cannot."""

import io
import os
import threading
from pathlib import Path

import pytest

from producer.errors import BadInput
from producer.sending.source import open_source


def test_file_is_counted_and_stands_at_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for content, total in ((b"", 0), (b"1\n2\n", 2), (b"1\n2", 2), (b"\n", 1)):
        file.write_bytes(content)
        with open_source(file, io.BytesIO()) as (source, is_file):
            assert (is_file, source.total, source.size, source.file.read()) == (True, total, len(content), content)


def test_same_content_has_the_same_digest_wherever_it_comes_from(tmp_path: Path) -> None:
    file, pipe = tmp_path / "f", tmp_path / "pipe"
    file.write_bytes(b"1\n2\n")
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"1\n2\n",))
    writer.start()
    digests = []
    for path, stdin in ((file, b""), (pipe, b""), (None, b"1\n2\n")):
        with open_source(path, io.BytesIO(stdin)) as (source, is_file):
            digests.append(source.digest)
            assert is_file == (path == file)
            assert source.file.read() == b"1\n2\n"
    writer.join(10)
    assert len(set(digests)) == 1


def test_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1\n")
    with open_source(file, io.BytesIO()) as (source, _):
        source.check_unchanged()
        with file.open("ab") as more:
            more.write(b"2\n")
        with pytest.raises(BadInput, match="was changed while it was being sent"):
            source.check_unchanged()
