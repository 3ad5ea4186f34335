"""How long it is believed what a controller has noted of why tasks wait."""

#: A controller writes its notes again well within that; those of one that is gone are no longer true.
NOTES_SECONDS = 60.0


def believed_since(now: float) -> float:
    """Notes from before that are passed over; `now` is seconds since the epoch."""
    return now - NOTES_SECONDS
