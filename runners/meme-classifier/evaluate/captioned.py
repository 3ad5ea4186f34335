"""Memes whose text is known: drawn with the words and fonts of one part, on templates and photos."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFont

from training.augment import saved_as_jpeg
from training.captions import Writing, line_height, outlined, with_bar, wrapped
from training.sources import installed_picture, template
from training.splits import Part, Splits

Style = Literal["outlined", "white bar", "black bar"]

#: Templates that show no text of their own, which nobody would know whether to count.
TEXTLESS: dict[Part, tuple[str, ...]] = {
    "validation": (
        *("ackbar", "ams", "astronaut", "awkward", "bihw", "biw", "blb", "boat", "both", "box", "captain", "cb"),
        *("cryingfloor", "disastergirl", "doge", "elf", "fry"),
    ),
    "test": (
        *("afraid", "agnes", "apcr", "atis", "bender", "bs", "buzz", "center", "cheems", "db", "dg", "drunk"),
        *("feelsgood", "fetch", "fwp", "ggg", "grumpycat", "hagrid", "handshake", "harold", "icanhas", "iw", "joker"),
        *("keanu", "kermit", "kombucha"),
    ),
}
#: To be raised whenever something was learnt from the pictures of the test: then others are drawn.
SERIES = 2
WITH_TEXT = ("skimage/data/text.png", "skimage/data/page.png")


@dataclass(frozen=True)
class Captioned:
    picture: Image.Image
    text: str
    font: str


def captioned(splits: Splits, part: Part, style: Style, count: int) -> Iterator[Captioned]:
    """The same ones each time: two thirds on templates, the others on photos; JPEGs, 450 to 800 pixels wide."""
    writing = Writing.of(splits, part)
    for number in range(count):
        choice = random.Random(f"{SERIES} {part} {style} {number}")  # noqa: S311 - no secret
        ground = _ground(splits, part, choice)
        font = writing.font(choice, max(16, int(ground.height * choice.uniform(0.06, 0.12))))
        draw = _outlined if style == "outlined" else _barred
        picture, text = draw(ground, writing, font, choice, style)
        yield Captioned(saved_as_jpeg(picture, choice.randint(55, 90)), text, font.getname()[0] or "")


def _ground(splits: Splits, part: Part, choice: random.Random) -> Image.Image:
    if choice.random() < 0.7:
        picture = template(choice.choice(TEXTLESS[part]))
    else:
        picture = installed_picture(choice.choice([name for name in splits.photos[part] if name not in WITH_TEXT]))
    width = choice.randint(450, 800)
    return picture.resize((width, max(200, round(width * picture.height / picture.width))))


def _outlined(
    ground: Image.Image, writing: Writing, font: ImageFont.FreeTypeFont, choice: random.Random, style: Style
) -> tuple[Image.Image, str]:
    """White with a black outline, in capitals, at the top and at the bottom."""
    read = []
    for is_top in (True, False):
        lines = wrapped(writing.phrase(choice, 3, 7).upper(), font, ground.width * 0.94, 2)
        top = ground.height * 0.02 if is_top else ground.height * 0.96 - line_height(font) * len(lines)
        outlined(ground, lines, font, top, ("white", "black"))
        read.extend(lines)
    return ground, " ".join(read)


def _barred(
    ground: Image.Image, writing: Writing, font: ImageFont.FreeTypeFont, choice: random.Random, style: Style
) -> tuple[Image.Image, str]:
    """Sentences with capitals and small letters, on a bar above (or at times below) the picture."""
    font = font.font_variant(size=max(16, int(font.size * 0.7)))
    text = writing.phrase(choice, 4, 14).capitalize() + choice.choice((".", "?", "!", "", ""))
    lines = wrapped(text, font, ground.width * 0.94, 3)
    barred = with_bar(ground, lines, font, dark=style == "black bar", below=choice.random() < 0.2)
    return barred, " ".join(lines)
