"""What most adapters look like."""

import time

OPTIONS = {"divide": {"retries": 1, "retry_on": ["ZeroDivisionError"]}}


def run_upper(text: str, times: int = 1) -> str:
    """Turn a text into capital letters.

    A second paragraph that explains more.

    Args:
        text: Any text,
            in any language.
        times (int): How often.

    >>> run_upper("abc", times=2)
    'ABCABC'
    """
    return text.upper() * times


def run_divide(a: float, b: float) -> float:
    """Divide.

    >>> run_divide(1, 2)  # doctest: +SKIP
    0.5
    """
    return a / b


def run_slowly(steps: int, *, task, logger) -> list[int]:
    """Report each step."""
    logger.info("started", steps=steps)
    done = []
    for step in task.track(range(steps), "stepping"):
        time.sleep(0.001)
        done.append(step)
    return done


def runtime_info() -> str:
    """Not an algorithm: the prefix is run_, all of it."""
    return "none"
