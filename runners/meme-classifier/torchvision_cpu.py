"""Makes ``import torchvision`` work where its compiled part does not fit the torch beside it.

The Linux wheels of torchvision in the plain index are linked against CUDA. Beside a torch for CPUs their ``_C.so``
cannot be loaded, and the import then ends with ``RuntimeError: operator torchvision::nms does not exist``, though
nothing that works on tensors alone (``transforms.v2``, the models) needs that operator. Saying which arguments the two
operators would take is enough. Where the compiled part loads, nothing is done.
"""

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

#: The two that torchvision's Python code refers to while it is imported.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def prepare() -> torch.library.Library | None:
    """To be called before torchvision is imported for the first time.

    None when torchvision's own operators are there, else what declares them (it lives as long as it is referred to,
    and the cache of this function does). Raises ModuleNotFoundError when torchvision is not installed.
    """
    found = importlib.util.find_spec("torchvision")  # does not import it
    if found is None or found.origin is None:
        raise ModuleNotFoundError("torchvision is not installed; run pip install -r requirements.txt")
    if _loads(Path(found.origin).parent):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(operator)
    return library


def transforms() -> ModuleType:
    """``torchvision.transforms.v2``, imported when it can be."""
    prepare()
    return importlib.import_module("torchvision.transforms.v2")


def _loads(folder: Path) -> bool:
    """Whether one of the compiled parts in `folder` can be loaded; torchvision loads it the same way."""
    for compiled in sorted([*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]):
        try:
            torch.ops.load_library(str(compiled))
        except OSError:
            continue
        return True
    return False
