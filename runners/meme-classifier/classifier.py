"""Which meme a picture shows: decoding, features and head together, as a worker process holds them."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extractor import Extractor
from head import FOLDER, Head, load_head
from images import decode

#: A CPU's slot works with one thread: several for one picture only fight for the cores that other slots use.
THREADS = 1
#: Smaller than this no edge of a picture gets while a JPEG is decoded: twice what the backbone looks at.
ENOUGH = 448
BEST = 3
#: What stored features were worth when the head was trained; half precision changes the last digits.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Guess:
    label: str
    score: float


@dataclass(frozen=True)
class Answer:
    """The best guesses, the best one first; `known` when the first is to be believed."""

    top: tuple[Guess, ...]
    known: bool


class Classifier:
    def __init__(self, extractor: Extractor, head: Head) -> None:
        self._extractor = extractor
        self._head = head
        self._decoding = threading.Lock()

    def prepare(self, content: bytes) -> Tensor:
        """What is of use here of a file's picture. Raises NotAPicture when it is none.

        Threads may call it while others download, but one at a time decodes: the largest pictures take 200 MB.
        """
        with self._decoding:
            return self._extractor.prepare(decode(content, enough=ENOUGH))

    def classify(self, prepared: list[Tensor]) -> list[Answer]:
        """One answer for each, in order, from one pass."""
        scores = self._head.scores(self._extractor.features(prepared))
        best = scores.topk(BEST, dim=1)
        return [
            self._answer(values, numbers)
            for values, numbers in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _answer(self, values: list[float], numbers: list[int]) -> Answer:
        top = tuple(
            Guess(self._head.labels[number], round(value, 5)) for value, number in zip(values, numbers, strict=True)
        )
        return Answer(top, values[0] >= self._head.threshold)


def load_classifier(device: str, folder: Path = FOLDER) -> Classifier:
    """Raises ValueError when the weights do not give what they gave after the training."""
    if device == "cpu":
        torch.set_num_threads(THREADS)
    head = load_head(folder)
    extractor = Extractor(device)
    check(extractor, head, folder)
    return Classifier(extractor, head)


def check(extractor: Extractor, head: Head, folder: Path = FOLDER) -> None:
    """Compares with what was stored after the training: the features of a drawn picture, and scores of stored features.

    The stored features are 1,280 averages over a whole picture each: what is where in it is not among them.
    """
    with np.load(folder / "check.npz", allow_pickle=False) as stored:
        features, numbers, scores, drawn = (
            torch.from_numpy(stored[name].astype(np.float32)) for name in ("features", "numbers", "scores", "drawn")
        )
    found = head.scores(features).max(dim=1)
    if not torch.equal(found.indices, numbers.long()) or not torch.allclose(found.values, scores, atol=TOLERANCE):
        raise ValueError("weights/head.npz does not give the stored labels; check it out again, or train again")
    alike = torch.nn.functional.cosine_similarity(extractor([pattern()]), drawn[None]).item()
    if alike < 1 - TOLERANCE:
        raise ValueError(f"the backbone gives other features than after the training ({alike:.3f} alike); reinstall it")


def pattern() -> Image.Image:
    """A drawn picture, the same everywhere: three gradients, one for each colour."""
    slope = Image.linear_gradient("L")
    return Image.merge("RGB", (slope, slope.rotate(90), Image.radial_gradient("L")))
