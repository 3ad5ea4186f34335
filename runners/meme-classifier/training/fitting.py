"""Fits the head on features: seconds, on one core."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import trange

from backbone import FEATURES
from head import Head

DIMENSIONS = 160
#: Is added to the spread within classes before it is inverted, as a share of its mean: copies are few.
SHRINKAGE = 0.15
#: Of the loss: cosines are multiplied by SCALE, and the right one is made smaller by MARGIN.
SCALE = 24.0
MARGIN = 0.15
#: How much pictures of no template count: they shall be equally unlike all of them.
OTHERS_WEIGHT = 0.5
EPOCHS = 10
BATCH = 256
LEARNING_RATE = 0.001


@dataclass(frozen=True)
class Examples:
    """Features (N, 1280) with the number of their label, and features of pictures that have none."""

    features: Tensor
    labels: Tensor
    others: Tensor


def fit(examples: Examples, labels: tuple[str, ...], *, title: str) -> Head:
    """Always the same for the same examples. Belief and threshold are still to be chosen."""
    generator = torch.Generator().manual_seed(1)
    features = functional.normalize(examples.features)
    means = torch.stack([features[examples.labels == number].mean(0) for number in range(len(labels))])
    centre, projection = whitening(features - means[examples.labels], means)

    def project(values: Tensor) -> Tensor:
        return functional.normalize((functional.normalize(values) - centre) @ projection)

    directions = _directions(
        project(examples.features), examples.labels, project(examples.others), project(means), generator, title
    )
    return Head(labels, centre, projection, directions)


def whitening(within: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (1280,) and projection (1280, 160): linear discriminant analysis with a shrunken within-class spread."""
    spread = within.T @ within / len(within)
    spread += SHRINKAGE * spread.diagonal().mean() * torch.eye(FEATURES)
    levels, axes = torch.linalg.eigh(spread)
    white = axes / levels.sqrt() @ axes.T
    centre = means.mean(0)
    _, _, between = torch.linalg.svd((means - centre) @ white, full_matrices=False)
    return centre, white @ between[:DIMENSIONS].T


def _directions(
    points: Tensor, labels: Tensor, others: Tensor, start: Tensor, generator: torch.Generator, title: str
) -> Tensor:
    """One for each label, by CosFace with outlier exposure (Hendrycks et al. 2019)."""
    directions = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([directions], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in trange(EPOCHS, desc=title, unit="epoch", leave=False):
        for chosen in torch.randperm(len(points), generator=generator).split(BATCH):
            beside = others[torch.randint(len(others), (BATCH // 4,), generator=generator)]
            loss = _loss(functional.normalize(directions), points[chosen], labels[chosen], beside)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()
    return functional.normalize(directions).detach()


def _loss(directions: Tensor, points: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    cosines = points @ directions.T
    margin = MARGIN * functional.one_hot(labels, len(directions))
    known = functional.cross_entropy(SCALE * (cosines - margin), labels)
    uniform = -functional.log_softmax(SCALE * (others @ directions.T), dim=1).mean()
    return known + OTHERS_WEIGHT * (uniform - torch.log(torch.tensor(float(len(directions)))))
