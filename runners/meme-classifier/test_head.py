"""The head's files, and what it makes of features."""

import json
import shutil

import numpy as np
import pytest
import torch

from classifier import check, pattern
from extractor import Extractor
from head import FOLDER, load_head


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor()


@pytest.fixture
def weights(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "weights")


def test_what_resembles_no_template_is_not_believed() -> None:
    head = load_head()
    scores = head.scores(torch.rand(5, 1280, generator=torch.Generator().manual_seed(1)))
    assert scores.shape == (5, len(head.labels))
    assert scores.min() >= 0
    assert scores.sum(dim=1).max() < head.threshold


def test_labels_are_sorted_and_there_is_no_pickle() -> None:
    head = load_head()
    assert list(head.labels) == sorted(set(head.labels))
    for name in ("head.npz", "check.npz"):
        with np.load(FOLDER / name, allow_pickle=False) as arrays:
            assert all(arrays[one].dtype.kind in "fi" for one in arrays.files)


def test_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 500_000


def test_stored_features_give_their_labels(extractor) -> None:
    check(extractor, load_head())


def test_another_head_is_noticed_at_start(extractor, weights) -> None:
    with np.load(weights / "head.npz") as stored:
        arrays = dict(stored)
    arrays["directions"] = np.roll(arrays["directions"], 1, axis=0)
    np.savez(weights / "head.npz", **arrays)
    with pytest.raises(ValueError, match="does not give the stored labels"):
        check(extractor, load_head(weights), weights)


def test_another_backbone_is_noticed_at_start(weights) -> None:
    class Other(Extractor):
        def features(self, prepared):
            return super().features([one.flip(1) for one in prepared])

    with pytest.raises(ValueError, match="the backbone gives other features"):
        check(Other(), load_head(weights), weights)


def test_files_of_two_trainings_are_not_mixed(weights) -> None:
    rest = json.loads((weights / "head.json").read_text())
    rest["labels"].pop()
    (weights / "head.json").write_text(json.dumps(rest))
    with pytest.raises(ValueError, match="different trainings"):
        load_head(weights)


def test_features_do_not_depend_on_the_batch(extractor) -> None:
    pictures = [pattern().rotate(angle) for angle in range(0, 350, 10)]
    together = extractor(pictures)
    alone = torch.cat([extractor([picture]) for picture in pictures])
    assert torch.allclose(together, alone, atol=1e-3)
    assert extractor([]).shape == (0, 1280)


def test_folded_backbone_gives_the_same_numbers() -> None:
    from backbone import load_backbone

    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        assert torch.allclose(load_backbone()(pictures), load_backbone(fold=False)(pictures), atol=1e-3)
