"""Text on pictures, as memes have it: outlined over the picture, or black on a bar beside it."""

import functools
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from training.sources import installed
from training.splits import Part, Splits


@dataclass(frozen=True)
class Writing:
    """The words and fonts of one part."""

    words: tuple[str, ...]
    fonts: tuple[str, ...]

    @classmethod
    def of(cls, splits: Splits, part: Part) -> "Writing":
        return cls(splits.words[part], splits.fonts[part])

    def phrase(self, choice: random.Random, least: int, most: int) -> str:
        return " ".join(choice.choice(self.words) for _ in range(choice.randint(least, most)))

    def font(self, choice: random.Random, size: int) -> ImageFont.FreeTypeFont:
        return read_font(choice.choice(self.fonts), size)


@functools.lru_cache(maxsize=256)
def read_font(relative: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(installed(relative), size)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: float, most: int) -> list[str]:
    """Lines no wider than `width` pixels, where words allow it; what does not fit on `most` lines is left out."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:most]


def outlined(
    picture: Image.Image, lines: list[str], font: ImageFont.FreeTypeFont, top: float, colours: tuple[str, str]
) -> None:
    """Draws centred lines from `top` on; `colours` are of the letters and of their outline."""
    draw = ImageDraw.Draw(picture)
    stroke = max(1, round(font.size / 14))
    for number, line in enumerate(lines):
        left = (picture.width - font.getlength(line)) / 2
        place = (left, top + number * line_height(font))
        draw.text(place, line, font=font, fill=colours[0], stroke_width=stroke, stroke_fill=colours[1])


def line_height(font: ImageFont.FreeTypeFont) -> float:
    return font.size * 1.2


def with_bar(
    picture: Image.Image, lines: list[str], font: ImageFont.FreeTypeFont, *, dark: bool = False, below: bool = False
) -> Image.Image:
    """The picture with a white (or black) bar above or below it, on which the lines stand."""
    ground, ink = ("black", "white") if dark else ("white", "black")
    height = round(line_height(font) * len(lines) + font.size * 0.7)
    whole = Image.new("RGB", (picture.width, picture.height + height), ground)
    whole.paste(picture, (0, 0 if below else height))
    draw = ImageDraw.Draw(whole)
    top = font.size * 0.3 + (picture.height if below else 0)
    for number, line in enumerate(lines):
        draw.text((picture.width * 0.03, top + number * line_height(font)), line, font=font, fill=ink)
    return whole
