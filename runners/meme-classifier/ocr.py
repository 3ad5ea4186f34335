"""The text on a meme: the writing is found, then read by Tesseract."""

import itertools
from dataclasses import dataclass

from PIL import Image

from images import decode
from lettering import pieces
from tesseract import Tesseract, Word

#: A JPEG may be decoded at a fraction of its size as long as no edge gets shorter.
ENOUGH = 900
#: A line of so few letters and digits must be read with so much confidence (0 to 100).
SHORT = 4
SURE = 80.0
#: A longer one with so much: text has 55 to 97, the leaves of a tree have less.
HARDLY = 45.0


@dataclass(frozen=True)
class Reader:
    tesseract: Tesseract

    @classmethod
    def find(cls) -> "Reader":
        """Raises TesseractMissing, which says what to install."""
        return cls(Tesseract.find())

    def read(self, content: bytes) -> str:
        """The text on a file's picture. Raises NotAPicture when the file is none."""
        return read_text(decode(content, enough=ENOUGH), self.tesseract)


def read_text(picture: Image.Image, tesseract: Tesseract) -> str:
    """Line by line, from top to bottom; empty when there is none."""
    found = [_lines(tesseract.words(piece.picture)) for piece in pieces(picture)]
    return "\n".join(line for lines in found for line in lines)


def _lines(words: list[Word]) -> list[str]:
    """What is short and uncertain is what the picture left over, not text."""
    lines = [list(line) for _, line in itertools.groupby(words, key=lambda word: word.line)]
    return [" ".join(word.text for word in line) for line in lines if _is_text(line)]


def _is_text(line: list[Word]) -> bool:
    signs = sum(sign.isalnum() for word in line for sign in word.text)
    confidence = sum(word.confidence * len(word.text) for word in line) / sum(len(word.text) for word in line)
    return signs > 0 and confidence >= (HARDLY if signs > SHORT else SURE)
