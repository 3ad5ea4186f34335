"""Trials with memes that are unknown: for each fold a head is trained without its templates, then asked about them."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evaluate.intervals import Share
from head import Head
from training.believing import fit_belief
from training.cache import Portion
from training.fitting import Examples, fit
from training.splits import FOLDS, Part, Splits

Features = dict[Portion, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """One fold's head, and features to ask it about: of memes that it knows or does not, and of no memes."""

    head: Head
    known: Tensor
    right: Tensor
    unknown: Tensor
    others: Tensor


@dataclass(frozen=True)
class Outcome:
    """Scores of the best label each, over all folds; `is_right` goes with `known`."""

    known: Tensor
    is_right: Tensor
    unknown: Tensor
    others: Tensor

    def threshold(self, let_through: float) -> float:
        """The lowest, in thousandths, at which no more unknown memes than this share are let through.

        Not the share that was counted, but the upper end of its 95 % interval: other memes than these will come.
        """
        scores = self.unknown.sort(descending=True).values.tolist()
        hits = max(count for count in range(len(scores)) if Share(count, len(scores)).interval()[1] <= let_through)
        return math.ceil(scores[hits] * 1000 + 1e-6) / 1000


def examples(features: Features, others: Features, labels: tuple[str, ...]) -> Examples:
    """The features of these labels alone, and those of no label."""
    number = {label: at for at, label in enumerate(labels)}
    chosen = [(portion, found) for portion, found in features.items() if portion.name in number]
    return Examples(
        features=torch.cat([torch.from_numpy(found) for _, found in chosen]),
        labels=torch.cat([torch.full((len(found),), number[portion.name]) for portion, found in chosen]),
        others=torch.cat([torch.from_numpy(found) for found in others.values()]),
    )


def train_folds(splits: Splits, features: Features, others: Features) -> list[Head]:
    """For each fold a head that does not know its templates."""
    heads = []
    for fold in range(FOLDS):
        left_out = set(splits.left_out(fold))
        labels = tuple(name for name in splits.labels if name not in left_out)
        heads.append(fit(examples(features, others, labels), labels, title=f"fold {fold + 1} of {FOLDS}"))
    return heads


def prepare(splits: Splits, heads: list[Head], part: Part, features: Features, others: Features) -> list[Trial]:
    """What the heads will be asked, of one part."""
    trials = []
    for fold, head in enumerate(heads):
        known = examples(features, others, head.labels)
        names = set(splits.left_out(fold, part))
        unknown = torch.cat([torch.from_numpy(found) for portion, found in features.items() if portion.name in names])
        trials.append(Trial(head, known.features, known.labels, unknown, known.others))
    return trials


def believe(trials: list[Trial]) -> tuple[float, ...]:
    """The belief that fits all folds together."""
    known = torch.cat([trial.head.signals(trial.known) for trial in trials])
    unknown = torch.cat([trial.head.signals(trial.unknown) for trial in trials])
    return fit_belief(known, unknown)


def judge(trials: list[Trial], belief: tuple[float, ...]) -> Outcome:
    """What the heads answer when they believe so."""
    heads = [replace(trial.head, belief=belief) for trial in trials]
    known = [head.scores(trial.known).max(dim=1) for head, trial in zip(heads, trials, strict=True)]
    return Outcome(
        known=torch.cat([best.values for best in known]),
        is_right=torch.cat([best.indices == trial.right for best, trial in zip(known, trials, strict=True)]),
        unknown=torch.cat([head.scores(trial.unknown).amax(dim=1) for head, trial in zip(heads, trials, strict=True)]),
        others=torch.cat([head.scores(trial.others).amax(dim=1) for head, trial in zip(heads, trials, strict=True)]),
    )
