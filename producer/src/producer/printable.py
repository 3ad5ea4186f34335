"""Text of strangers on a terminal."""


def printable(text: str, most: int = 2000) -> str:
    """The text without anything that a terminal would obey; line ends stay."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(char if char.isprintable() or char == "\n" else " " for char in shown)


def one_line(text: str, most: int = 80) -> str:
    """The same on one line."""
    return printable(text, most).replace("\n", " ")
