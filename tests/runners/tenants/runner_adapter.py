"""An algorithm that many tenants share."""

import time

CALL_SECONDS = 0.1
OPTIONS = {"tenant_call": {"slots": 2}, "two_each": {"slots": 4, "group_slots": 2}}


def run_tenant_call() -> float:
    """When it began, in seconds since the epoch."""
    began = time.time()
    time.sleep(CALL_SECONDS)
    return began


def run_two_each(seconds: float) -> list[float]:
    """When it began and ended."""
    began = time.time()
    time.sleep(seconds)
    return [began, time.time()]
