"""How much of a text was read."""

import re
from dataclasses import dataclass, field

from evaluate.intervals import Share


def normal(text: str) -> str:
    """What is compared: letters and digits without their case, single spaces."""
    return " ".join(re.sub(r"[^A-Z0-9]+", " ", text.upper()).split())


def mistakes(expected: str, read: str) -> int:
    """Characters to put in, take out or change (Levenshtein's distance)."""
    before = list(range(len(read) + 1))
    for row, wanted in enumerate(expected, start=1):
        now = [row]
        for column, got in enumerate(read, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (wanted != got)))
        before = now
    return before[-1]


@dataclass
class Reading:
    """Sums over many pictures."""

    pictures: int = 0
    exact: int = 0
    characters: int = 0
    wrong: int = 0
    words: int = 0
    words_read: int = 0
    as_written: int = 0
    as_written_wrong: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, expected: str, read: str) -> None:
        wanted, got = normal(expected), normal(read)
        distance = mistakes(wanted, got)
        self.pictures += 1
        self.exact += distance == 0
        self.characters += len(wanted)
        self.wrong += min(len(wanted), distance)
        left = got.split()
        for word in wanted.split():
            self.words += 1
            if word in left:
                self.words_read += 1
                left.remove(word)
        written, seen = " ".join(expected.split()), " ".join(read.split())
        self.as_written += len(written)
        self.as_written_wrong += min(len(written), mistakes(written, seen))
        if distance:
            self.failures.append((expected, read))

    @property
    def character_share(self) -> Share:
        return Share(self.characters - self.wrong, self.characters)

    @property
    def as_written_share(self) -> Share:
        return Share(self.as_written - self.as_written_wrong, self.as_written)

    @property
    def word_share(self) -> Share:
        return Share(self.words_read, self.words)

    @property
    def exact_share(self) -> Share:
        return Share(self.exact, self.pictures)
