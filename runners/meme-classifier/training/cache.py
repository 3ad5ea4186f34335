"""Features of augmented pictures, computed by several processes and kept: an interrupted run goes on where it was."""

import ast
import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

HERE = Path(__file__).parent
FOLDER = HERE.parent / ".cache"
#: What the features depend on: when one of these files changes, nothing that was kept is used.
CODE = (
    "splits.json",
    "sources.py",
    "captions.py",
    "augment.py",
    "portions.py",
    "../backbone.py",
    "../preprocessing.py",
)


@dataclass(frozen=True)
class Portion:
    """Some augmented copies of one picture. `source` is "template", "photo" or "drawing"; `name` tells which."""

    part: str
    source: str
    name: str
    copies: int
    least_severity: float
    most_severity: float
    #: Tells portions apart that are alike in all else.
    series: int = 0

    @property
    def file(self) -> str:
        severity = f"{self.least_severity}-{self.most_severity}"
        return f"{self.part}_{self.source}_{self.name.replace('/', '.')}_{self.copies}x{severity}_{self.series}.npy"


def fingerprint() -> str:
    found = hashlib.sha256()
    for name in CODE:
        source = (HERE / name).read_text(encoding="utf-8")
        found.update((_meaning(source) if name.endswith(".py") else source).encode())
    return found.hexdigest()[:12]


def _meaning(source: str) -> str:
    """The code without its layout, comments and docstrings: to reword one should not cost a computation."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def features(
    portions: Iterable[Portion], work: Callable[[Portion], np.ndarray], *, processes: int, title: str
) -> dict[Portion, np.ndarray]:
    """Features of each portion, (copies, 1280); `work` computes what is not kept yet, in processes of its own."""
    wanted = list(portions)
    folder = FOLDER / fingerprint()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [portion for portion in wanted if not (folder / portion.file).exists()]
    if missing:
        _compute(missing, work, folder, processes, title)
    return {portion: np.load(folder / portion.file, allow_pickle=False).astype(np.float32) for portion in wanted}


def _compute(
    missing: list[Portion], work: Callable[[Portion], np.ndarray], folder: Path, processes: int, title: str
) -> None:
    context = multiprocessing.get_context("spawn")
    total = sum(portion.copies for portion in missing)
    with context.Pool(processes, _one_thread) as pool, tqdm(total=total, unit="img", desc=title, smoothing=0.05) as bar:
        for portion, found in pool.imap_unordered(_Keeping(work), missing):
            _keep(folder / portion.file, found)
            bar.update(portion.copies)


@dataclass(frozen=True)
class _Keeping:
    """Hands the portion back with its features: they come in any order."""

    work: Callable[[Portion], np.ndarray]

    def __call__(self, portion: Portion) -> tuple[Portion, np.ndarray]:
        return portion, self.work(portion)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _keep(path: Path, found: np.ndarray) -> None:
    """Whole or not at all: an interrupted run leaves no half file."""
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        np.save(file, found.astype(np.float16), allow_pickle=False)
    os.replace(beside, path)
