"""Memes as they are found: captioned, cropped, framed, turned, recoloured, blurred, shrunk, saved as JPEG again."""

import io
import random

import torch
from PIL import Image, ImageFilter

import torchvision_cpu
from training.captions import Writing, line_height, outlined, with_bar, wrapped


class Augmentation:
    """Makes pictures of one part; the same `seed` gives the same picture."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._v2 = torchvision_cpu.transforms()

    def __call__(self, picture: Image.Image, seed: int, severity: float) -> Image.Image:
        """`severity`: 0 leaves it nearly as it is, 1 is what is common, 1.5 what is hardly recognised."""
        choice = random.Random(seed)  # noqa: S311 - no secret
        torch.manual_seed(seed)  # torchvision's transforms draw from torch's generator
        picture = self._resized(picture, choice)
        if choice.random() < 0.08 * severity:
            picture = self._v2.functional.horizontal_flip(picture)
        if choice.random() < 0.6 * severity:
            picture = self._cropped(picture, choice, severity)
        picture = self._captioned(picture, choice)
        picture = self._bent(picture, choice, severity)
        picture = self._recoloured(picture, choice, severity)
        return self._worn(picture, choice, severity)

    def _resized(self, picture: Image.Image, choice: random.Random) -> Image.Image:
        scale = choice.uniform(320, 640) / max(picture.size)
        size = (max(64, round(picture.height * scale)), max(64, round(picture.width * scale)))
        resized: Image.Image = self._v2.functional.resize(picture, size)
        return resized

    def _cropped(self, picture: Image.Image, choice: random.Random, severity: float) -> Image.Image:
        left, top, right, bottom = (choice.uniform(0, 0.18 * severity) for _ in range(4))
        width, height = picture.size
        return picture.crop(
            (int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height))
        )

    def _captioned(self, picture: Image.Image, choice: random.Random) -> Image.Image:
        kind = choice.random()
        if kind < 0.1:
            return picture
        if kind < 0.28:
            return self._barred(picture, choice)
        places = choice.choices(
            (("top", "bottom"), ("top",), ("bottom",), ("top", "middle", "bottom"), ("middle",)), (8, 4, 3, 1, 2)
        )
        for place in places[0]:
            self._caption(picture, choice, place)
        return picture

    def _barred(self, picture: Image.Image, choice: random.Random) -> Image.Image:
        font = self._writing.font(choice, max(12, int(picture.height * choice.uniform(0.05, 0.1))))
        text = self._writing.phrase(choice, 3, 14).capitalize()
        lines = wrapped(text, font, picture.width * 0.94, 3)
        return with_bar(picture, lines, font, dark=choice.random() < 0.2, below=choice.random() < 0.15)

    def _caption(self, picture: Image.Image, choice: random.Random, place: str) -> None:
        font = self._writing.font(choice, max(12, int(picture.height * choice.uniform(0.07, 0.14))))
        text = self._writing.phrase(choice, 2, 9)
        text = text.upper() if choice.random() < 0.7 else text.capitalize()
        lines = wrapped(text, font, picture.width * 0.94, 3)
        tops = {
            "top": picture.height * 0.02,
            "middle": picture.height * choice.uniform(0.2, 0.7),
            "bottom": picture.height * 0.96 - line_height(font) * len(lines),
        }
        colours = choice.choices((("white", "black"), ("black", "white"), ("yellow", "black")), (17, 2, 1))[0]
        outlined(picture, lines, font, tops[place], colours)

    def _bent(self, picture: Image.Image, choice: random.Random, severity: float) -> Image.Image:
        v2, fill = self._v2, choice.choice((0, 255))
        if choice.random() < 0.1 * severity:
            border = max(1, int(choice.uniform(0.02, 0.1) * max(picture.size)))
            picture = v2.functional.pad(picture, border, fill=[choice.randint(0, 255) for _ in range(3)])
        if choice.random() < 0.25 * severity:
            picture = v2.RandomRotation(8 * severity, expand=choice.random() < 0.3, fill=fill)(picture)
        if choice.random() < 0.1 * severity:
            picture = v2.RandomPerspective(0.2 * min(1.0, severity), p=1.0, fill=fill)(picture)
        if choice.random() < 0.15 * severity:
            width = max(32, int(picture.width * choice.uniform(0.75, 1.3)))
            picture = v2.functional.resize(picture, (picture.height, width))
        return picture

    def _recoloured(self, picture: Image.Image, choice: random.Random, severity: float) -> Image.Image:
        if choice.random() < 0.7:
            most = min(0.9, 0.35 * severity)
            picture = self._v2.ColorJitter(most, most, most, 0.02 * severity)(picture)
        if choice.random() < 0.06 * severity:
            picture = self._v2.functional.rgb_to_grayscale(picture, num_output_channels=3)
        return picture

    def _worn(self, picture: Image.Image, choice: random.Random, severity: float) -> Image.Image:
        if choice.random() < 0.2 * severity:
            picture = picture.filter(ImageFilter.GaussianBlur(choice.uniform(0.3, 1.6) * severity))
        if choice.random() < 0.2 * severity:
            scale = choice.uniform(0.2, 0.6)
            size = (max(40, int(picture.height * scale)), max(40, int(picture.width * scale)))
            picture = self._v2.functional.resize(picture, size)
        if choice.random() < 0.15 * severity:
            picture = self._noisy(picture, choice.uniform(3, 18) * severity)
        if choice.random() < 0.8:
            picture = saved_as_jpeg(picture, choice.randint(max(8, int(40 - 25 * severity)), 92))
        return picture

    def _noisy(self, picture: Image.Image, levels: float) -> Image.Image:
        noisy: Image.Image = self._v2.Compose(
            [
                self._v2.PILToTensor(),
                self._v2.ToDtype(torch.float32, scale=True),
                self._v2.GaussianNoise(0.0, levels / 255),
                self._v2.ToPILImage(),
            ]
        )(picture)
        return noisy


def saved_as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
