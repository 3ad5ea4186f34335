"""Finding and reading text on pictures that are drawn here; the figures are `python -m evaluate`'s."""

import numpy as np
import pytest
from PIL import Image

from lettering import Bar, find_bars, pieces
from ocr import Reader, read_text


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.find()


def levels(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(picture)
    return pixels.min(axis=2), pixels.max(axis=2)


def test_bar_above_a_picture_is_found(captioned) -> None:
    (bar,) = find_bars(*levels(captioned))
    assert not bar.is_dark
    assert bar.top == 0 and abs(bar.bottom - 100) <= 4


def test_black_bar_below_a_picture_is_found(gradient) -> None:
    picture = Image.new("RGB", (320, 300), "black")
    picture.paste(gradient, (0, 0))
    assert Bar(240, 300, is_dark=True) in find_bars(*levels(picture))


def test_cartoon_on_white_is_no_bar(gradient) -> None:
    picture = Image.new("RGB", (800, 600), "white")
    picture.paste("orange", (200, 0, 600, 600))
    assert find_bars(*levels(picture)) == []


@pytest.mark.parametrize("colour", ["white", "black", "gray", "red"])
def test_empty_picture_has_no_pieces(colour) -> None:
    assert pieces(Image.new("RGB", (640, 480), colour)) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 4000), (4000, 3), (7000, 5000)])
def test_odd_sizes_are_no_problem(size) -> None:
    assert pieces(Image.new("RGB", size, "teal")) == []


def test_noise_is_looked_at_in_bounded_time(reader) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    assert len(read_text(Image.fromarray(noise), reader.tesseract)) < 200


@pytest.mark.parametrize("ground", ["#d02020", "#ffffff", "#101010", "#70b0f0"])
def test_outlined_letters_are_read_on_any_ground(ground, reader, write) -> None:
    picture = Image.new("RGB", (800, 400), ground)
    write(picture, "TASKS AHEAD OF TIME", 30, outlined=True)
    assert read_text(picture, reader.tesseract) == "TASKS AHEAD OF TIME"


def test_black_letters_on_white_alone_are_read(reader, write) -> None:
    picture = Image.new("RGB", (800, 200), "white")
    write(picture, "Nothing but a sentence", 60, outlined=False)
    assert read_text(picture, reader.tesseract) == "Nothing but a sentence"


def test_text_comes_from_top_to_bottom(reader, write) -> None:
    picture = Image.new("RGB", (800, 900), "white")
    picture.paste("#406080", (0, 100, 800, 450))
    picture.paste("#804060", (0, 550, 800, 900))
    write(picture, "First is a bar", 20, outlined=False)
    write(picture, "THEN A PICTURE", 200, outlined=True)
    write(picture, "Third another bar", 470, outlined=False)
    write(picture, "LAST A PICTURE", 700, outlined=True)
    assert read_text(picture, reader.tesseract).splitlines() == [
        "First is a bar",
        "THEN A PICTURE",
        "Third another bar",
        "LAST A PICTURE",
    ]
