"""When to believe a label: a logistic regression on a head's signals, fitted on known and unknown memes."""

import torch
from torch import Tensor
from torch.nn import functional

#: Keeps the weights from growing without end; too small to matter otherwise.
DECAY = 1e-3
STEPS = 200


def fit_belief(known: Tensor, unknown: Tensor) -> tuple[float, ...]:
    """Signals (N, 3) of both → weights and a constant, as if both were as common."""
    signals = torch.cat([known, unknown])
    is_known = torch.cat([torch.ones(len(known)), torch.zeros(len(unknown))])
    counts = torch.cat([torch.full((len(one),), len(signals) / (2 * len(one))) for one in (known, unknown)])
    middle, spread = signals.mean(dim=0), signals.std(dim=0)
    weights = torch.zeros(signals.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS)

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = ((signals - middle) / spread) @ weights[:-1] + weights[-1]
        found = functional.binary_cross_entropy_with_logits(logits, is_known, weight=counts)
        found = found + DECAY * (weights[:-1] ** 2).sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    scaled = weights.detach()[:-1] / spread
    constant = weights.detach()[-1] - scaled @ middle
    return tuple(round(float(one), 4) for one in (*scaled, constant))
