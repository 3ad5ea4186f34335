"""How far a file was sent: a small file beside it, replaced as a whole at every step."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from producer.errors import BadInput
from producer.models import from_json, to_json

#: Refused lines that are remembered, to be tried again. Beyond them the note stays where it is.
MOST_REFUSED = 1000
_VERSION = 1


@dataclass(frozen=True)
class SentNote:
    """All lines up to `line`, which ends at `offset`, were sent, and queued but for those in `refused`.

    `digest` is that of the file and of the algorithm it was sent for; `run` names the series; `last_id` is the id of
    a task that was queued, `tasks` how many were.
    """

    gateway: str
    digest: str
    run: str
    line: int = 0
    offset: int = 0
    tasks: int = 0
    last_id: str | None = None
    refused: tuple[tuple[int, int], ...] = ()
    is_complete: bool = False
    version: int = _VERSION


def note_path(file: Path, wanted: Path | None) -> Path:
    """``FILE.sent`` beside the file, or in the folder that was named, or the file that was named."""
    if wanted is None:
        return file.with_name(f"{file.name}.sent")
    return wanted / f"{file.name}.sent" if wanted.is_dir() else wanted


def read_note(path: Path) -> SentNote | None:
    """None when there is none. Raises BadInput for something else in its place."""
    try:
        note = from_json(SentNote, json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; name another place with --sent") from None
    except ValueError:
        raise BadInput(
            f"{path} is not a note of how far a file was sent; remove it, or name another place with --sent"
        ) from None
    if note.version != _VERSION:
        raise BadInput(f"{path} was written by another version of this command; remove it, or name another with --sent")
    return note


def write_note(path: Path, note: SentNote) -> None:
    """Durable when it returns. Raises BadInput when the place cannot be written."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with beside.open("wb") as file:
            file.write(json.dumps(to_json(note), indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BadInput(
            f"{path}, where it is noted how far the file was sent, cannot be written: {error.strerror}; "
            "name another place with --sent"
        ) from None
