"""``python benchmark.py``: how long loading takes, how many pictures a second go through, and in how much memory."""

import argparse
import io
import resource
import statistics
import sys
import time

from PIL import Image

BATCHES = (1, 8, 32)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="cpu")
    options.add_argument("--pictures", type=int, default=96, help="for each size of batch")
    given = options.parse_args()
    start = time.perf_counter()
    from classifier import load_classifier  # torch's import is part of what is measured

    imported = time.perf_counter()
    classifier = load_classifier(given.device)
    loaded = time.perf_counter()
    print(f"import {imported - start:.2f} s, load and check {loaded - imported:.2f} s, {memory()}")
    content = picture()
    classifier.classify([classifier.prepare(content)])
    for batch in BATCHES:
        milliseconds = []
        for _ in range(max(3, given.pictures // batch)):
            before = time.perf_counter()
            classifier.classify([classifier.prepare(content) for _ in range(batch)])
            milliseconds.append((time.perf_counter() - before) * 1000 / batch)
        middle = statistics.median(milliseconds)
        best = min(milliseconds)
        print(f"batch {batch:2}: {middle:6.1f} ms a picture (best {best:.1f}), {1000 / middle:6.1f} pictures/s")
    print(memory())


def picture() -> bytes:
    """A JPEG of a common size: 600 × 500."""
    slope = Image.linear_gradient("L").resize((600, 500))
    file = io.BytesIO()
    Image.merge("RGB", (slope, slope.rotate(180), slope)).save(file, "JPEG")
    return file.getvalue()


def memory() -> str:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"at most {most / (1024 * 1024 if sys.platform == 'darwin' else 1024):.0f} MB so far"


if __name__ == "__main__":
    main()
