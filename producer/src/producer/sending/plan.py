"""What to do with a file of which something may have been sent before. Pure."""

from dataclasses import dataclass

from producer.sending.sent_note import SentNote


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller asks for, of a file with this `digest`."""

    gateway: str
    digest: str
    again: bool
    run: str | None


@dataclass(frozen=True, slots=True)
class Fresh:
    """From the first line, as the series `run`."""

    run: str


@dataclass(frozen=True, slots=True)
class GoOn:
    """From where the note stands; its refused lines are tried again."""

    note: SentNote


@dataclass(frozen=True, slots=True)
class Refuse:
    """Neither is right; `reason` says why and what to do."""

    reason: str


def plan(wish: Wish, note: SentNote | None, *, still_known: bool, new_run: str) -> Fresh | GoOn | Refuse:
    """`still_known`: the gateway knows the task that the note names. `new_run` is a name nobody used before.

    ``--again`` starts a new series only after the last one was sent wholly: interrupted and called again in the same
    words, it goes on.
    """
    if note is None or note.gateway != wish.gateway or (wish.run is not None and note.run != wish.run):
        return Fresh(wish.run if wish.run is not None else new_run if wish.again else "")
    if wish.again and (note.is_complete or note.digest != wish.digest or not still_known):
        return Fresh(new_run)
    if note.digest != wish.digest:
        return Refuse(
            f"the file, or its --algorithm, is another than when its first {note.line:,} lines were sent; "
            "send new or corrected lines as a file of their own, or with --again the whole file as new tasks"
        )
    if not still_known:
        return Refuse(
            f"{note.line:,} lines were sent before, but the gateway at {wish.gateway} does not know their tasks any "
            "more; with --again the whole file is sent as new tasks"
        )
    return GoOn(note)
