"""Pictures → features: preprocessing and backbone together, on the CPU or a GPU."""

import torch
from PIL import Image
from torch import Tensor

from backbone import load_backbone
from preprocessing import Preprocessing

#: More at once are no faster on a CPU, where each holds 15 MB while it is computed; a GPU wants many.
CPU_CHUNK = 8
GPU_CHUNK = 64


class Extractor:
    """On a GPU in half precision; the features come back as 32-bit numbers on the CPU all the same."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        on_cpu = self._device.type == "cpu"
        self._type = torch.float32 if on_cpu else torch.float16
        self._chunk = CPU_CHUNK if on_cpu else GPU_CHUNK
        self._backbone = load_backbone().to(self._device, self._type)
        self._preprocessing = Preprocessing()

    def __call__(self, pictures: list[Image.Image]) -> Tensor:
        """(N, 1280), in the order of the pictures."""
        return self.features([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> Tensor:
        """What is left of a picture for the backbone: 0.6 MB, however large it was."""
        return self._preprocessing([picture])

    @torch.inference_mode()
    def features(self, prepared: list[Tensor]) -> Tensor:
        """(N, 1280), in the order given; N may be 0."""
        found = [self._pass(prepared[start : start + self._chunk]) for start in range(0, len(prepared), self._chunk)]
        return torch.cat(found) if found else torch.empty(0, 1280)

    def _pass(self, prepared: list[Tensor]) -> Tensor:
        together = torch.cat(prepared).to(self._device, self._type, memory_format=torch.channels_last)
        features: Tensor = self._backbone(together)
        return features.float().cpu()
