"""A decoded picture as the backbone wants it, by torchvision."""

import torch
from PIL import Image
from torch import Tensor

import torchvision_cpu
from backbone import MEAN, SIDE, SPREAD


class Preprocessing:
    """Squeezes whole pictures into a square: what would be cut off tells something too."""

    def __init__(self) -> None:
        v2 = torchvision_cpu.transforms()
        # Resizes whole numbers: several times faster than floating point, and the rounding is far below JPEG's.
        self._steps = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((SIDE, SIDE), antialias=True),
                v2.ToDtype(torch.float32, scale=False),
                v2.Normalize([MEAN] * 3, [SPREAD] * 3),
            ]
        )

    def __call__(self, pictures: list[Image.Image]) -> Tensor:
        """(N, 3, 224, 224), in the memory order in which convolutions are fast."""
        tensors = [self._steps(picture).as_subclass(Tensor) for picture in pictures]
        return torch.stack(tensors).contiguous(memory_format=torch.channels_last)
