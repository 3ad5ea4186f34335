"""Long texts in lists."""

#: Of a message in a line of a list.
MOST_CHARACTERS = 1000


def shortened(text: str) -> str:
    """As much of a message as a line of a list shows."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
