"""How far a file was sent: a small file beside it, replaced as a whole after each request."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from producer.errors import BadInput
from producer.models import from_json, to_json

#: 1 continued behind lines that were refused.
_VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """All lines up to `line`, which ends at `offset`, are queued: `tasks` tasks. There the next call continues.

    `line` stays before the first line that was refused, so that it is tried again; what follows is then sent again,
    too, which makes no task twice. `reached` is the last line that was sent, and `is_complete` says that it is the
    last of the file. `last_id` is the id of the last queued task, `next_id` of the first one behind `line`. The gateway
    must still know both: tasks are forgotten some days after their end.
    """

    gateway: str
    digest: str
    run: str
    line: int = 0
    offset: int = 0
    tasks: int = 0
    reached: int = 0
    last_id: str | None = None
    next_id: str | None = None
    is_complete: bool = False
    version: int = _VERSION


def starting_point(
    found: Checkpoint | None,
    gateway: str,
    digest: str,
    *,
    again: bool,
    run: str | None,
    still_known: bool,
    new_run: str,
) -> Checkpoint:
    """Where to begin: at the checkpoint that was found, or at the first line. Pure. Raises BadInput if neither is safe.

    With `again` a new run starts only after the last one was sent to its end: an interrupted command continues when it
    is repeated in the same words.

    Parameters:
        still_known: whether the gateway knows the checkpoint's tasks.
        new_run: a name that was never used.
    """
    if found is None or found.gateway != gateway or (run is not None and found.run != run):
        return Checkpoint(gateway, digest, run if run is not None else new_run if again else "")
    if again and (found.is_complete or found.digest != digest or not still_known):
        return Checkpoint(gateway, digest, new_run)
    if found.digest != digest:
        raise BadInput(
            f"the file, or its --algorithm, is another than when its first {found.reached:,} lines were sent; "
            "send new or corrected lines as a file of their own, or with --again the whole file as new tasks"
        )
    if not still_known:
        raise BadInput(
            f"{found.reached:,} lines were sent before, but the gateway at {gateway} does not know their tasks any "
            "more; with --again the whole file is sent as new tasks"
        )
    return found


def checkpoint_path(file: Path, chosen: Path | None) -> Path:
    """``FILE.sent`` beside the file, or in the folder that was chosen, or the file that was chosen."""
    if chosen is None:
        return file.with_name(f"{file.name}.sent")
    return chosen / f"{file.name}.sent" if chosen.is_dir() else chosen


def read_checkpoint(path: Path) -> Checkpoint | None:
    """None if there is no file. Raises BadInput for something else in its place."""
    try:
        checkpoint = from_json(Checkpoint, json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; name another place with --sent") from None
    except ValueError:
        raise BadInput(
            f"{path} is not a note of how far a file was sent; remove it, or name another place with --sent"
        ) from None
    if checkpoint.version != _VERSION:
        raise BadInput(f"{path} was written by another version of this command; remove it, or name another with --sent")
    return checkpoint


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Durable when it returns. Raises BadInput if the place cannot be written."""
    try:
        with replaced(path) as file:
            file.write(json.dumps(to_json(checkpoint), indent=1))
    except OSError as error:
        raise BadInput(
            f"{path}, where it is noted how far the file was sent, cannot be written: {error.strerror}; "
            "name another place with --sent"
        ) from None


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of `path` when it was written to its end, durably. Raises OSError."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
