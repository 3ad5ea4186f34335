"""Finds the writing on a meme, as pictures of black text on white that can be read.

Two ways of captioning are looked for: black text on a white bar (or white on a black one) above, below or between
pictures, and white letters with a dark outline drawn over a picture. Both are told from the picture by their shape.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops
from scipy import ndimage

Mask = np.ndarray[tuple[int, int], np.dtype[np.bool_]]
#: The darkest or the lightest of each pixel's three channels, 0 to 255.
Levels = np.ndarray[tuple[int, int], np.dtype[np.uint8]]

#: All sizes below are for this width; letters are then some 30 to 80 pixels high, as Tesseract likes them.
WIDTH = 900
#: A tall picture is scaled down further.
MOST_HEIGHT = 2700

#: Brightness (0 to 255) from which on a pixel may be of a white letter, and below which it may be of its outline.
WHITE_LEVELS = (225, 170)
#: So much of a letter is of the highest level.
WHITE_SHARE = 0.3
DARK = 100
#: Letters are so high and at most so wide, as shares of the picture, and have at least so many pixels.
LEAST_HEIGHT, MOST_LETTER_HEIGHT, MOST_LETTER_WIDTH = 0.02, 0.2, 0.25
LEAST_AREA = 30
#: More are no caption, and comparing them all with one another takes long.
MOST_LETTERS = 1000
#: So much of a letter's edge must lie so near to something dark: that is its outline.
OUTLINED_SHARE = 0.55
OUTLINE_REACH = 13
#: What is read is the picture itself so near around the letters: inside their outline, with their soft edges.
LETTER_REACH = 5

#: Rows of a bar are at least this bright (or dark) where they are not lettered.
BAR_LEVEL = 235
#: So much of a row of a bar is ground, and so much ground or letters; the rest is the letters' soft edges.
GROUND_SHARE = 0.25
PLAIN_SHARE = 0.75
#: Of a pixel's channels the lightest and the darkest differ by less where it has no colour (JPEG adds some).
COLOURLESS = 60
COLOURED_SHARE = 0.03
#: The outermost pixels of a row, as a share of the width: a bar reaches the edges of the picture.
EDGE_SHARE = 0.012
LEAST_BAR_HEIGHT = 0.045
#: On a bar: so many letters are too few to tell how they are drawn; of outlined ones there are so many for each dark
#: component, and they are so high beside those.
FEW = 4
OUTLINED_COUNT = 0.8
OUTLINED_HEIGHT = 0.6
#: Rows that do not look like the bar's, but are too few to end it.
GAP_ROWS = 3


@dataclass(frozen=True)
class Bar:
    """Rows from `top` up to (not including) `bottom`."""

    top: int
    bottom: int
    is_dark: bool


@dataclass(frozen=True)
class Piece:
    """Black text on white, and where it began in the picture (a row of the scaled one)."""

    picture: Image.Image
    top: int


def pieces(picture: Image.Image) -> list[Piece]:
    """What is to be read, from top to bottom; empty when nothing looks like writing."""
    scaled = _scaled(picture)
    red, green, blue = scaled.split()
    darkest = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue))
    lightest = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    bars = [bar for bar in find_bars(darkest, lightest) if bar.is_dark or not _is_outlined(darkest, lightest, bar)]
    found = [piece for bar in bars if (piece := _bar_piece(scaled, bar)) is not None]
    found.extend(_outlined_pieces(darkest, outlined_letters(darkest, lightest, bars), bars))
    return sorted(found, key=lambda piece: piece.top)


def _scaled(picture: Image.Image) -> Image.Image:
    scale = min(WIDTH / picture.width, MOST_HEIGHT / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)


def find_bars(darkest: Levels, lightest: Levels) -> list[Bar]:
    """White and black bands over the whole width, high enough to hold text."""
    white, black = darkest >= BAR_LEVEL, lightest <= 255 - BAR_LEVEL
    coloured = lightest - darkest > COLOURLESS
    plain = ((white | black | (darkest > WHITE_LEVELS[0]) | (lightest < DARK)).mean(axis=1) > PLAIN_SHARE) & (
        coloured.mean(axis=1) < COLOURED_SHARE
    )
    found = [*_bands(white, plain, is_dark=False), *_bands(black, plain, is_dark=True)]
    return sorted(found, key=lambda bar: bar.top)


def _bands(ground: Mask, plain: np.ndarray, *, is_dark: bool) -> list[Bar]:
    height, width = ground.shape
    edge = max(2, round(width * EDGE_SHARE))
    borders = np.concatenate([ground[:, :edge], ground[:, -edge:]], axis=1)
    is_bar = plain & (borders.mean(axis=1) > 0.9) & (ground.mean(axis=1) > GROUND_SHARE)
    is_bar = ndimage.binary_closing(is_bar, np.ones(2 * GAP_ROWS + 1)) | is_bar
    labels, _ = ndimage.label(is_bar)
    runs = [rows[0] for rows in ndimage.find_objects(labels)]
    return [Bar(run.start, run.stop, is_dark) for run in runs if run.stop - run.start >= LEAST_BAR_HEIGHT * height]


def _is_outlined(darkest: Levels, lightest: Levels, bar: Bar) -> bool:
    """Whether what stands on white is outlined letters: then what is dark surrounds them, and runs together.

    The white inside plain black letters is told from that by its number and its height.
    """
    rows = slice(bar.top, bar.bottom)
    near_dark = _grown(lightest[rows] < DARK, OUTLINE_REACH)
    bright = darkest[rows] > WHITE_LEVELS[0]
    inside = _heights(_letters(bright, bright, near_dark, darkest.shape))
    around = _heights(lightest[rows] < DARK)
    around = around[around >= LEAST_HEIGHT * len(darkest)]
    if len(inside) < FEW or not len(around):
        return False
    return len(inside) >= OUTLINED_COUNT * len(around) and np.median(inside) >= OUTLINED_HEIGHT * np.median(around)


def _heights(mask: Mask) -> np.ndarray:
    boxes = _boxes(ndimage.label(mask)[0])
    heights: np.ndarray = boxes[:, 1] - boxes[:, 0]
    return heights


def _bar_piece(scaled: Image.Image, bar: Bar) -> Piece | None:
    part = scaled.crop((0, bar.top, scaled.width, bar.bottom)).convert("L")
    if bar.is_dark:
        part = part.point(lambda level: 255 - level)
    ink = np.asarray(part) < 128
    rows = np.flatnonzero(ink.any(axis=1))
    if len(rows) == 0 or rows[-1] - rows[0] < 8 or ink.sum() < 4 * LEAST_AREA:
        return None
    return Piece(_with_margin(part), bar.top)


def outlined_letters(darkest: Levels, lightest: Levels, bars: list[Bar]) -> Mask:
    """Where white letters with a dark outline are; bars are left out.

    Thin strokes are not as bright as thick ones, but on a bright ground a letter is told from it by the highest level
    only: so what is a letter at either level is taken.
    """
    near_dark = _grown(lightest < DARK, OUTLINE_REACH)
    found = np.zeros(darkest.shape, np.bool_)
    for level in WHITE_LEVELS:
        bright = darkest > level
        for bar in bars:
            bright[bar.top : bar.bottom] = False
        found |= _letters(bright, darkest > WHITE_LEVELS[0], near_dark, darkest.shape)
    return found


def _letters(bright: Mask, white: Mask, near_dark: Mask, shape: tuple[int, ...]) -> Mask:
    """The components of `bright` that look like outlined letters of a picture of this shape."""
    labels, count = ndimage.label(bright)
    boxes = _boxes(labels)
    chosen = np.zeros(count + 1, np.bool_)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    chosen[1:] = _letter_sized(boxes, areas[1:], shape)
    chosen &= np.bincount(labels[white & bright], minlength=count + 1) >= WHITE_SHARE * areas
    chosen &= _outlined_share(labels, bright, near_dark, count) >= OUTLINED_SHARE
    numbers = np.flatnonzero(chosen)
    chosen[numbers[~_in_company(boxes[numbers - 1])]] = False
    mask: Mask = chosen[labels]
    return mask


def _boxes(labels: np.ndarray) -> np.ndarray:
    """Top, bottom, left and right of each component."""
    found = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in ndimage.find_objects(labels)]
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def _letter_sized(boxes: np.ndarray, areas: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    fits: np.ndarray = (heights >= LEAST_HEIGHT * height) & (heights <= MOST_LETTER_HEIGHT * height)
    return fits & (widths <= MOST_LETTER_WIDTH * width) & (areas >= LEAST_AREA)


def _in_company(boxes: np.ndarray) -> np.ndarray:
    """Whether another letter of about its height stands beside each: specks of a picture mostly are alone."""
    if len(boxes) > MOST_LETTERS:
        return np.ones(len(boxes), np.bool_)
    top, bottom, left, right = boxes.T
    height = bottom - top
    ratio = height[:, None] / height[None, :]
    overlap = np.minimum(bottom[:, None], bottom[None, :]) - np.maximum(top[:, None], top[None, :])
    gap = np.maximum(left[:, None], left[None, :]) - np.minimum(right[:, None], right[None, :])
    beside = (ratio > 0.6) & (ratio < 1 / 0.6) & (overlap > 0.5 * height[:, None]) & (gap < 1.5 * height[:, None])
    np.fill_diagonal(beside, False)
    found: np.ndarray = beside.any(axis=1)
    return found


def _outlined_share(labels: np.ndarray, bright: Mask, near_dark: Mask, count: int) -> np.ndarray:
    """For each label, how much of its edge has something dark nearby."""
    edge = bright & ~_shrunk(bright, 3)
    edges = np.bincount(labels[edge], minlength=count + 1)
    near_edges = np.bincount(labels[edge & near_dark], minlength=count + 1)
    share: np.ndarray = near_edges / np.maximum(edges, 1)
    return share


def _grown(mask: Mask, size: int) -> Mask:
    grown: Mask = ndimage.maximum_filter(mask.view(np.uint8), size).view(np.bool_)
    return grown


def _shrunk(mask: Mask, size: int) -> Mask:
    shrunk: Mask = ndimage.minimum_filter(mask.view(np.uint8), size).view(np.bool_)
    return shrunk


def _outlined_pieces(darkest: Levels, mask: Mask, bars: list[Bar]) -> list[Piece]:
    """One for the letters above, between and below the bars each, so that texts come in their order."""
    cuts = [0, *(row for bar in bars for row in (bar.top, bar.bottom)), len(mask)]
    ink = np.where(_grown(mask, LETTER_REACH), 255 - darkest, 255).astype(np.uint8)
    found = []
    for top, bottom in zip(cuts[::2], cuts[1::2], strict=True):
        if mask[top:bottom].sum() >= 4 * LEAST_AREA:
            found.append(Piece(_with_margin(Image.fromarray(ink[top:bottom])), top))
    return found


def _with_margin(part: Image.Image, margin: int = 12) -> Image.Image:
    """Tesseract overlooks what touches the edge."""
    whole = Image.new("L", (part.width + 2 * margin, part.height + 2 * margin), 255)
    whole.paste(part, (margin, margin))
    return whole
