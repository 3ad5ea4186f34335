"""Algorithms that hang, crash and fail, for tests of what that costs the others."""

import ctypes
import os

OPTIONS = {
    "hang": {"timeout_seconds": 2, "retries": 1},
    "picky": {"batch": 16},
}


def run_hang(forever: bool = True) -> str:
    while forever:
        pass
    return "came back"


def run_exit(code: int) -> str:
    os._exit(code)


def run_segfault() -> str:
    return str(ctypes.string_at(0))


def run_refuse(reason: str) -> str:
    raise ValueError(reason)


def run_flaky() -> str:
    raise ConnectionError("the other side hung up")


def batch_picky(number: list[int]) -> list[int | Exception]:
    """Dies at 13, raises for the whole batch at 7, fails only its own slot at 5."""
    if 13 in number:
        os._exit(3)
    if 7 in number:
        raise RuntimeError("seven")
    return [ValueError("five") if n == 5 else n * n for n in number]


def run_bad_result() -> float:
    return float("nan")
