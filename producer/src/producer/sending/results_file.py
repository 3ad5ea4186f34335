"""Where results go: a file that is there only when it is whole, standard output, or nowhere."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from producer.errors import BadInput


@contextmanager
def results_file(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes one line. None: nowhere; ``-``: standard output."""
    if path is None:
        yield lambda _line: None
    elif str(path) == "-":
        yield lambda line: print(line, file=sys.stdout)
    else:
        with _whole(path) as write:
            yield write


@contextmanager
def _whole(path: Path) -> Iterator[Callable[[str], None]]:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        file = beside.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    try:
        with file:
            yield lambda line: print(line, file=file)
        beside.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
