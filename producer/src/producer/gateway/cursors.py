"""Where a list goes on: a word that the client hands back as it got it. Pure.

A cursor of one list is not taken for one of another. Its form is in the OpenAPI document, so that any client, and any
fuzzer, can tell what is none.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CursorKind:
    """The cursors of one list; `letter` tells them from others'."""

    letter: str

    @property
    def pattern(self) -> str:
        """Places are signed 64-bit numbers, above 0; 18 digits always fit."""
        return f"^{self.letter}[1-9][0-9]{{0,17}}$"

    def write(self, place: int) -> str:
        return f"{self.letter}{place}"

    def read(self, cursor: str) -> int:
        """Raises ValueError with a sentence for what the list never told."""
        if not re.fullmatch(self.pattern.strip("^$"), cursor, re.ASCII):
            raise ValueError("must be the 'next' of the page before, as it was told")
        return int(cursor[len(self.letter) :])


TASKS = CursorKind("t")
DEAD_LETTERS = CursorKind("d")
