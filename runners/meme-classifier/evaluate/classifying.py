"""The classifier's tables."""

import torch
from torch import Tensor

from classifier import Classifier, load_classifier
from evaluate.intervals import Share
from head import Head
from training.cache import features
from training.portions import hard_portions, other_portions, portion_features, template_portions
from training.sources import elsewhere
from training.splits import Part, Splits
from training.trials import Features, judge, prepare, train_folds


def known_table(splits: Splits, head: Head, processes: int) -> None:
    """The head as it is shipped, on templates that it knows."""
    common = features(template_portions(splits, "test"), portion_features, processes=processes, title="test")
    hard = features(hard_portions(splits), portion_features, processes=processes, title="hard test")
    others = features(other_portions(splits, "test"), portion_features, processes=processes, title="no memes")
    print(
        f"\nThe shipped head: {len(head.labels)} templates, words and fonts unseen; accepted from {head.threshold} on"
    )
    for title, found in (("common", common), ("hard (see portions.py)", hard)):
        scores, right = _scores(head, found)
        best = scores.topk(3, dim=1)
        hits, accepted = best.indices == right[:, None], best.values[:, 0] >= head.threshold
        _row(f"{title}: top-1", hits[:, 0])
        _row(f"{title}: top-3", hits.any(dim=1))
        _row(f"{title}: right and accepted", hits[:, 0] & accepted)
        _row(f"{title}: wrong and accepted", ~hits[:, 0] & accepted)
    best_other = torch.cat([head.scores(torch.from_numpy(found)).amax(dim=1) for found in others.values()])
    _row("photos and drawings accepted", best_other >= head.threshold)


def _scores(head: Head, found: Features) -> tuple[Tensor, Tensor]:
    """(N, labels) and (N,): what each picture really shows."""
    number = {label: at for at, label in enumerate(head.labels)}
    rows = torch.cat([torch.from_numpy(values) for values in found.values()])
    right = torch.cat([torch.full((len(values),), number[portion.name]) for portion, values in found.items()])
    return head.scores(rows), right


def unknown_table(splits: Splits, head: Head, processes: int) -> None:
    """Five heads, each trained without a fifth of the templates: what they say of those (the test half of them)."""

    def of(part: Part, *, others: bool = False) -> Features:
        wanted = other_portions(splits, part) if others else template_portions(splits, part)
        return features(wanted, portion_features, processes=processes, title=part)

    heads = train_folds(splits, of("training"), of("training", others=True))
    outcome = judge(prepare(splits, heads, "test", of("test"), of("test", others=True)), head.belief)
    print(f"\nUnknown memes: five heads, each without a fifth of the templates; the same threshold, {head.threshold}")
    _row("known memes: top-1", outcome.is_right)
    _row("known memes: right and accepted", outcome.is_right & (outcome.known >= head.threshold))
    _row("unknown memes let through", outcome.unknown >= head.threshold)
    _row("photos and drawings let through", outcome.others >= head.threshold)


def elsewhere_table(splits: Splits) -> None:
    """Pictures of another package, unaltered, through the whole classifier."""
    classifier = load_classifier("cpu")
    print("\nPictures from another source (memepy), unaltered")
    right = [_told(classifier, name) == label for name, label in splits.elsewhere_known.items()]
    _row("known memes: recognised", torch.tensor(right))
    refused = [_told(classifier, name) is None for name in splits.elsewhere_unknown]
    _row("unknown memes: told to be unknown", torch.tensor(refused))
    for name, is_well in zip([*splits.elsewhere_known, *splits.elsewhere_unknown], right + refused, strict=True):
        if not is_well:
            print(f"    {name}: {_told(classifier, name) or 'unknown'}")


def _told(classifier: Classifier, name: str) -> str | None:
    (answer,) = classifier.classify([classifier.prepare(elsewhere(name))])
    return answer.top[0].label if answer.known else None


def _row(title: str, hits: Tensor) -> None:
    print(f"  {title:42}{Share(int(hits.sum()), len(hits))}")
