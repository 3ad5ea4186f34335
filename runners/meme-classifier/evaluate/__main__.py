"""``python -m evaluate``: the tables of MODEL_CARD.md, from pictures that nothing was trained or tuned on.

The first run renders them and computes their features (kept in ``.cache``); after that it takes minutes, most for OCR.
"""

import argparse

import torch

from evaluate.classifying import elsewhere_table, known_table, unknown_table
from evaluate.ocr import ocr_table
from head import load_head
from ocr import Reader
from tesseract import TesseractMissing
from training.splits import read_splits


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--processes", type=int, default=2, help="that compute features at the same time")
    options.add_argument("--only", choices=("classifier", "ocr"), help="leave the other tables out")
    options.add_argument("--ocr-pictures", type=int, default=100, help="of each kind")
    given = options.parse_args()
    torch.set_num_threads(1)
    splits = read_splits()
    print("95 % intervals by Wilson's score. Copies of one picture are alike, so the true ones are wider.")
    if given.only != "ocr":
        head = load_head()
        known_table(splits, head, given.processes)
        unknown_table(splits, head, given.processes)
        elsewhere_table(splits)
    if given.only != "classifier":
        try:
            ocr_table(splits, Reader.find(), given.ocr_pictures)
        except TesseractMissing as missing:
            print(f"\nOCR is not measured: {missing}")


if __name__ == "__main__":
    main()
