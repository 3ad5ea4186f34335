"""Which pictures each part consists of, and how one portion of them becomes features."""

import functools
import hashlib
import random

import numpy as np
from PIL import Image

from extractor import Extractor
from training.augment import Augmentation
from training.cache import Portion
from training.captions import Writing
from training.sources import drawing, installed_picture, template
from training.splits import Part, Splits, read_splits

#: Copies of each template (for training in several series), and their severities; the figures are about COMMON ones.
TRAINING_COPIES = 10
TRAINING_SERIES = 3
VALIDATION_COPIES = 4
TEST_COPIES = 8
COMMON = (0.6, 1.0)
WIDE = (0.3, 1.3)
HARD = (1.4, 1.6)
#: Pictures that are no memes: photos, and drawings of which no two are the same.
PHOTO_COPIES: dict[Part, int] = {"training": 24, "validation": 12, "test": 12}
DRAWINGS: dict[Part, int] = {"training": 240, "validation": 60, "test": 60}
DRAWINGS_IN_A_PORTION = 20


def template_portions(splits: Splits, part: Part) -> list[Portion]:
    if part == "training":
        series = range(TRAINING_SERIES)
        return [
            Portion(part, "template", name, TRAINING_COPIES, *WIDE, one) for one in series for name in splits.labels
        ]
    copies = VALIDATION_COPIES if part == "validation" else TEST_COPIES
    return [Portion(part, "template", name, copies, *COMMON) for name in splits.labels]


def hard_portions(splits: Splits) -> list[Portion]:
    """For the test only: crops of up to 29 % on each side, strong blur, many JPEG artefacts."""
    return [Portion("test", "template", name, 3, *HARD) for name in splits.labels]


def other_portions(splits: Splits, part: Part) -> list[Portion]:
    """Photos and drawings."""
    photos = [Portion(part, "photo", name, PHOTO_COPIES[part], 0.0, 1.0) for name in splits.photos[part]]
    numbers = range(DRAWINGS[part] // DRAWINGS_IN_A_PORTION)
    return photos + [Portion(part, "drawing", str(number), DRAWINGS_IN_A_PORTION, 0.0, 1.0) for number in numbers]


def render(portion: Portion) -> list[Image.Image]:
    """The same pictures each time."""
    augmentation = _augmentation(portion.part)
    pictures = []
    for copy in range(portion.copies):
        seed = _seed(portion, copy)
        choice = random.Random(seed)  # noqa: S311 - no secret
        severity = choice.uniform(portion.least_severity, portion.most_severity)
        pictures.append(augmentation(_source(portion, choice), seed, severity))
    return pictures


def portion_features(portion: Portion) -> np.ndarray:
    """(copies, 1280); runs in a process of its own."""
    features: np.ndarray = _extractor()(render(portion)).numpy()
    return features


def _source(portion: Portion, choice: random.Random) -> Image.Image:
    if portion.source == "template":
        return template(portion.name)
    if portion.source == "photo":
        return installed_picture(portion.name)
    return drawing(choice)


def _seed(portion: Portion, copy: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{portion.file} {copy}".encode()).digest()[:4], "big")


@functools.cache
def _extractor() -> Extractor:
    return Extractor()


@functools.cache
def _augmentation(part: Part) -> Augmentation:
    return Augmentation(Writing.of(read_splits(), part))
