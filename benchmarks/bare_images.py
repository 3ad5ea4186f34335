"""The other side of images.py, in the image runner's own Python: a plain loop over batches, nothing around it.

For each line on stdin, a JSON list of URLs: downloads and decodes them (eight at a time, as the runner does), one pass
through the model for each batch, and prints a line with the labels and the seconds of CPU time and on the clock.
"""

import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from classifier import load_classifier


def main(batch: int) -> None:
    classifier = load_classifier("cpu")

    def prepared(url: str) -> Any:
        with urllib.request.urlopen(url, timeout=15) as answer:  # noqa: S310 - our own server
            return classifier.prepare(answer.read())

    print("ready", flush=True)
    for line in sys.stdin:
        urls = json.loads(line)
        labels: list[str] = []
        cpu, clock = time.process_time(), time.perf_counter()
        for start in range(0, len(urls), batch):
            with ThreadPoolExecutor(8) as threads:
                ready = list(threads.map(prepared, urls[start : start + batch]))
            labels += [answer.top[0].label for answer in classifier.classify(ready)]
        used = {"cpu": time.process_time() - cpu, "clock": time.perf_counter() - clock}
        print(json.dumps({"labels": labels, **used}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
