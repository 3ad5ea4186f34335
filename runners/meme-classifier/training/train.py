"""``python -m training.train``: renders, computes features, fits, chooses the threshold, and writes ``weights/``.

Minutes on two cores; what was computed is kept in ``.cache``, so that an interrupted run goes on where it was.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch

from classifier import check, pattern
from extractor import Extractor
from head import FOLDER, Head, load_head
from training.cache import Portion, features
from training.fitting import fit
from training.portions import other_portions, portion_features, template_portions
from training.splits import Part, Splits, read_splits
from training.trials import Features, believe, examples, judge, prepare, train_folds

#: Most of the unknown memes that may be let through.
LET_THROUGH = 0.05
#: Stored features, one of every so many templates.
CHECK_EVERY = 26


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--processes", type=int, default=2, help="that compute features at the same time")
    processes = options.parse_args().processes
    torch.set_num_threads(1)
    splits = read_splits()
    wanted = _portions(splits, "training") + _portions(splits, "validation")
    found = features(wanted, portion_features, processes=processes, title="features")
    belief, threshold = choose(splits, found)
    labels = tuple(splits.labels)
    chosen = examples(_of(found, "training"), _of(found, "training", others=True), labels)
    head = replace(fit(chosen, labels, title="all templates"), belief=belief, threshold=threshold)
    head.save()
    _store_check(load_head(), found)
    check(Extractor(), load_head())
    print(f"wrote {FOLDER}; python -m evaluate measures it")


def choose(splits: Splits, found: Features) -> tuple[tuple[float, ...], float]:
    """Belief and threshold, from what heads say of the validation part."""
    heads = train_folds(splits, _of(found, "training"), _of(found, "training", others=True))
    trials = prepare(splits, heads, "validation", _of(found, "validation"), _of(found, "validation", others=True))
    belief = believe(trials)
    outcome = judge(trials, belief)
    threshold = outcome.threshold(LET_THROUGH)
    accepted = outcome.is_right & (outcome.known >= threshold)
    print(f"validation: {_share(outcome.is_right)} right, {_share(accepted)} right and accepted,")
    print(
        f"{_share(outcome.unknown >= threshold)} of unknown memes let through: threshold {threshold}, belief {belief}"
    )
    return belief, threshold


def _share(hits: torch.Tensor) -> str:
    return f"{hits.float().mean().item():.1%}"


def _portions(splits: Splits, part: Part) -> list[Portion]:
    return template_portions(splits, part) + other_portions(splits, part)


def _of(found: Features, part: str, *, others: bool = False) -> Features:
    return {
        portion: values
        for portion, values in found.items()
        if portion.part == part and (portion.source != "template") == others
    }


def _store_check(head: Head, found: Features) -> None:
    """Some features and what they are worth; see :func:`classifier.check`."""
    stored = [values[0] for values in _of(found, "validation").values()][::CHECK_EVERY]
    rows = torch.from_numpy(np.stack(stored).astype(np.float16).astype(np.float32))
    best = head.scores(rows).max(dim=1)
    np.savez_compressed(
        FOLDER / "check.npz",
        features=rows.numpy().astype(np.float16),
        numbers=best.indices.numpy().astype(np.int32),
        scores=best.values.numpy(),
        drawn=Extractor()([pattern()])[0].numpy().astype(np.float16),
    )


if __name__ == "__main__":
    main()
