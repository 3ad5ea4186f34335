"""Features → label and score: a whitened cosine classifier that knows what it does not know.

Features are brought to length 1, projected to 160 numbers in which copies of one template differ alike in all
directions (within-class whitening), brought to length 1 again, and compared with one direction for each template.
The directions were trained with a margin (CosFace: Wang et al. 2018), and with pictures that belong to none of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

FOLDER = Path(__file__).with_name("weights")
#: Cosines are multiplied by this before the softmax.
SCALE = 24.0


@dataclass(frozen=True)
class Head:
    labels: tuple[str, ...]
    #: (1280,) and (1280, 160): what is taken away from a feature of length 1, and what it is multiplied by then.
    centre: Tensor
    projection: Tensor
    #: (labels, 160), each of length 1.
    directions: Tensor
    #: What each signal (see :meth:`signals`) counts for the belief that a picture shows one of the templates, and a
    #: constant.
    belief: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    #: Below this score the best label is not believed.
    threshold: float = 0.5

    def project(self, features: Tensor) -> Tensor:
        """(N, 1280) → (N, 160), not yet of length 1."""
        return (functional.normalize(features) - self.centre) @ self.projection

    def cosines(self, projected: Tensor) -> Tensor:
        """(N, 160) → (N, labels), -1 to 1."""
        return functional.normalize(projected) @ self.directions.T

    def signals(self, features: Tensor) -> Tensor:
        """(N, 1280) → (N, 3): how alike the best label is, how much more so than the next, how far from the centre.

        What is far from the centre is an undistorted picture, and must be more alike to be believed.
        """
        projected = self.project(features)
        best = self.cosines(projected).topk(2, dim=1).values
        length = torch.linalg.vector_norm(projected, dim=1)
        return torch.stack([best[:, 0], best[:, 0] - best[:, 1], length.log()], dim=1)

    def scores(self, features: Tensor) -> Tensor:
        """(N, 1280) → (N, labels); each row adds up to the belief that one of them is right, which is below 1."""
        weights = torch.tensor(self.belief)
        belief = torch.sigmoid(self.signals(features) @ weights[:-1] + weights[-1])
        shares = functional.softmax(SCALE * self.cosines(self.project(features)), dim=1)
        return belief[:, None] * shares

    def save(self, folder: Path = FOLDER) -> None:
        """Plain arrays of half precision and a page of JSON: no pickle."""
        arrays = {
            name: getattr(self, name).numpy().astype(np.float16) for name in ("centre", "projection", "directions")
        }
        np.savez_compressed(folder / "head.npz", **arrays)
        rest = {"belief": list(self.belief), "threshold": self.threshold, "labels": list(self.labels)}
        (folder / "head.json").write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")


def load_head(folder: Path = FOLDER) -> Head:
    """Raises ValueError when the files do not belong together."""
    rest = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    with np.load(folder / "head.npz", allow_pickle=False) as arrays:
        centre, projection, directions = (
            torch.from_numpy(arrays[name].astype(np.float32)) for name in ("centre", "projection", "directions")
        )
    if len(rest["labels"]) != len(directions):
        raise ValueError("weights/head.json and weights/head.npz are of different trainings; train again")
    return Head(tuple(rest["labels"]), centre, projection, directions, tuple(rest["belief"]), rest["threshold"])
