"""Batched twins."""

OPTIONS = {
    "scale": {"batch": 8, "max_tasks_per_process": 4},
    "square": {"process": "maths"},
    "cube": {"process": "maths"},
}

CALLS: list[dict] = []


def run_scale(value: float, factor: float = 2.0, offset: float = 0.0) -> float:
    """Scale one.

    >>> run_scale(1.5)
    3.0
    """
    return value * factor + offset


def batch_scale(value: list[float], offset: list[float], factor: float = 2.0) -> list[float | Exception]:
    CALLS.append({"value": value, "offset": offset, "factor": factor})
    return [ValueError("negative") if one < 0 else one * factor + more for one, more in zip(value, offset, strict=True)]


def batch_square(n: list[int], power: tuple[int, ...] = (2,)) -> list[int]:
    """Square them.

    Args:
        n: What to square.

    >>> batch_square([3, 4])
    [9, 16]
    """
    CALLS.append({"n": n, "power": power})
    return [one ** power[0] for one in n]


def run_cube(n: int) -> int:
    return n**3


def batch_short(n: list[int]) -> list[int]:
    return n[:-1]


def batch_text(n: list[int]):
    return "not a list"


def batch_failing(n: list[int]) -> list[int | ValueError]:
    return [ValueError(f"no {one}") for one in n]
