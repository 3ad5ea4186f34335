"""Registers without end: ``python registration_flood.py DISCOVERY_URL short|full``, as a process of its own.

Sends all of it once, then parts of it again until its standard input ends; prints how often each status was answered.
"""

import json
import select
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import requests


@dataclass(frozen=True)
class Size:
    names: int
    large: int
    senders: int


SIZES = {"short": Size(names=300, large=40, senders=2), "full": Size(names=5000, large=1000, senders=4)}


def registration(number: int, algorithms: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": f"flood-{number}",
        "host": f"http://127.0.0.1:{number % 60_000 + 1}",
        "boot": "b",
        "algorithms": algorithms,
    }


def flood(size: Size) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runner id and body of each registration, all kinds mixed."""
    for number in range(max(size.names // 5, size.large)):
        if number < size.names // 5:
            names = [{"name": f"junk_{number}_{each}"} for each in range(5)]
            yield f"names-{number}", registration(number, names)
        if number < size.large:
            large = [
                {"name": f"large_{number}_{each}", "description": f"{number}" + "x" * 64_000} for each in range(14)
            ]
            yield f"large-{number}", registration(10_000 + number, large)
        if number % 20 == 0:
            yield (
                f"slots-{number}",
                registration(20_000 + number, [{"name": f"slots_{number}", "limits": {"slots": 10**9}}]),
            )


def send_flood(discovery: str, size: Size, enough: Callable[[], bool]) -> Counter[int]:
    """The statuses of the answers. What goes on until it is enough is the same again."""
    statuses: Counter[int] = Counter()

    def put(one: tuple[str, dict[str, Any]]) -> int:
        return requests.put(f"{discovery}/runners/{one[0]}", json=one[1], timeout=60).status_code

    with ThreadPoolExecutor(size.senders) as pool:
        statuses.update(pool.map(put, flood(size)))
        while not enough():
            statuses.update(pool.map(put, islice(flood(size), 20)))
    return statuses


def is_over() -> bool:
    """Whether somebody has closed our standard input."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    print(json.dumps(send_flood(sys.argv[1], SIZES[sys.argv[2]], is_over)))
