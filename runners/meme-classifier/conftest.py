"""Pictures and a download that needs no network, for the tests beside this file."""

import base64
import io
from collections.abc import Callable

import pytest
from PIL import Image, ImageDraw, ImageFont

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """A picture as a file."""

    def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
        file = io.BytesIO()
        picture.save(file, form, **options)
        return file.getvalue()

    return encoded


@pytest.fixture(scope="session")
def data_url(encode: Encode) -> Callable[[Image.Image], str]:
    return lambda picture: "data:image/png;base64," + base64.b64encode(encode(picture)).decode()


@pytest.fixture(scope="session")
def gradient() -> Image.Image:
    """Something to look at that is no meme."""
    slope = Image.linear_gradient("L").resize((320, 240))
    return Image.merge("RGB", (slope, slope.transpose(Image.Transpose.ROTATE_180), Image.new("L", (320, 240), 90)))


@pytest.fixture(scope="session")
def write() -> Callable[..., None]:
    """Puts a line on a picture, in Pillow's own font, so that tests need no other."""
    font = ImageFont.load_default(46)

    def written(picture: Image.Image, text: str, top: int, *, outlined: bool) -> None:
        draw = ImageDraw.Draw(picture)
        if outlined:
            draw.text((20, top), text, font=font, fill="white", stroke_width=4, stroke_fill="black")
        else:
            draw.text((20, top), text, font=font, fill="black")

    return written


@pytest.fixture(scope="session")
def captioned(gradient: Image.Image, write: Callable[..., None]) -> Image.Image:
    """A white bar with a sentence, below it a picture with an outlined line."""
    meme = Image.new("RGB", (800, 600), "white")
    meme.paste(gradient.resize((800, 500)), (0, 100))
    write(meme, "When the queue is empty", 20, outlined=False)
    write(meme, "NOBODY WAITS", 520, outlined=True)
    return meme
