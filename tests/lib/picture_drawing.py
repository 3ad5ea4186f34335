"""Draws the pictures of the tests and asks the bare model about each; runs in the image runner's own Python.

``python -P picture_drawing.py FOLDER SERIES [--memes N]`` with the runner's folder and its training's packages on
PYTHONPATH. Writes the pictures and `pictures.json`: a list of what is sent to whom, and what is to come back.
"""

import argparse
import io
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from classifier import Classifier, load_classifier
from evaluate.captioned import captioned
from ocr import Reader
from training.augment import Augmentation
from training.captions import Writing
from training.sources import drawing, elsewhere, installed_picture, template
from training.splits import Splits, read_splits

#: Of each kind; with 20 that are no pictures, 200.
MEMES, DRAWINGS, FROM_ELSEWHERE, READ, DESCRIBED = 130, 10, 9, 14, 12
BROKEN = 20
FORMS = (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"))


@dataclass
class Picture:
    """One task. `truth`: the label, or "unknown"; None: nobody asks for it. `refused`: why it must fail, or empty."""

    file: str
    algorithm: str
    is_data: bool = False
    truth: str | None = None
    text: str | None = None
    refused: str = ""
    answer: Any = None


class Drawer:
    def __init__(self, folder: Path, series: str) -> None:
        self._folder = folder
        self._choice = random.Random(series)
        self._series = series
        self._splits: Splits = read_splits()
        self._augmentation = Augmentation(Writing.of(self._splits, "test"))
        self._count = 0

    def all(self) -> Iterator[Picture]:
        yield from self.memes(MEMES)
        yield from self._unknown()
        yield from self._written("ocr", READ)
        yield from self._written("meme_describe", DESCRIBED)
        yield from self._broken()

    def memes(self, count: int) -> Iterator[Picture]:
        """Captioned and worn as memes are, each of another template as long as there are some; every eighth inline."""
        labels = self._choice.sample(self._splits.labels, len(self._splits.labels))
        for number in range(count):
            label = labels[number % len(labels)]
            seed = random.Random(f"{self._series} {number}").getrandbits(32)
            drawn = self._augmentation(template(label), seed, self._choice.uniform(0.6, 1.0))
            yield Picture(self._save(drawn), "meme_classifier", number % 8 == 7, truth=label)

    def _unknown(self) -> Iterator[Picture]:
        for number in range(DRAWINGS):
            file = self._save(drawing(random.Random(f"{self._series} drawing {number}")))
            yield Picture(file, "meme_classifier", number % 5 == 4, truth="unknown")
        for name in self._splits.photos["test"][:5]:
            yield Picture(self._save(installed_picture(name)), "meme_classifier", truth="unknown")
        for name in self._splits.elsewhere_unknown[:FROM_ELSEWHERE]:
            yield Picture(self._keep(elsewhere(name), Path(name).suffix), "meme_classifier", truth="unknown")

    def _written(self, algorithm: str, count: int) -> Iterator[Picture]:
        for style, many in (("outlined", count - count // 2), ("white bar", count // 2)):
            for found in captioned(self._splits, "test", style, many):
                yield Picture(self._save(found.picture), algorithm, text=found.text)

    def _broken(self) -> Iterator[Picture]:
        whole = io.BytesIO()
        template(self._splits.labels[0]).save(whole, "JPEG")
        kinds = {
            "damaged or cut off": whole.getvalue()[: len(whole.getvalue()) // 2],
            "an HTML page, not an image": b"<!doctype html><title>Not a picture</title>",
            "is empty": b"",
            "answered 404": None,
        }
        for number in range(BROKEN):
            reason, content = list(kinds.items())[number % len(kinds)]
            file = "nothing-is-here.jpg" if content is None else self._keep(content, ".jpg")
            yield Picture(file, "meme_classifier", refused=reason)

    def _save(self, picture: Image.Image) -> str:
        form, ending = FORMS[self._count % len(FORMS)]
        file = io.BytesIO()
        picture.save(file, form, quality=90)
        return self._keep(file.getvalue(), f".{ending}")

    def _keep(self, content: bytes, ending: str) -> str:
        self._count += 1
        name = f"{self._count:04}{ending}"
        (self._folder / name).write_bytes(content)
        return name


def bare_meme(classifier: Classifier, content: bytes) -> dict[str, Any]:
    """What the model says with nothing around it."""
    (answer,) = classifier.classify([classifier.prepare(content)])
    label = answer.top[0].label if answer.known else "unknown"
    return {
        "label": label,
        "score": answer.top[0].score,
        "top": [asdict(one) for one in answer.top],
        "known": answer.known,
    }


def add_answers(pictures: list[Picture], folder: Path) -> None:
    classifier, reader = load_classifier("cpu"), Reader.find()
    for picture in pictures:
        if picture.refused:
            continue
        content = (folder / picture.file).read_bytes()
        if picture.algorithm == "meme_classifier":
            picture.answer = bare_meme(classifier, content)
        elif picture.algorithm == "ocr":
            picture.answer = reader.read(content)
        else:
            picture.answer = {"meme": bare_meme(classifier, content), "text": reader.read(content)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("series", help="other pictures for another word")
    options.add_argument("--memes", type=int, default=0, help="so many memes only, without asking the model")
    given = options.parse_args()
    drawer = Drawer(given.folder, given.series)
    pictures = list(drawer.memes(given.memes) if given.memes else drawer.all())
    if not given.memes:
        add_answers(pictures, given.folder)
    (given.folder / "pictures.json").write_text(json.dumps([asdict(one) for one in pictures]))


if __name__ == "__main__":
    main()
