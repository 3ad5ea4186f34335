"""A no-op, one by one and batched, to measure everything around a handler."""


def run_noop(number: int) -> int:
    return number


def batch_noop_batched(number: list[int]) -> list[int]:
    return number
