import re

import pytest

from runnerlib.contract.names import ALGORITHM_PATTERN
from taskqueue.rabbitmq import names


@pytest.mark.parametrize(
    ("seconds", "name"), [(5, "tasks-retry.5s"), (0.2, "tasks-retry.0.2s"), (600.0, "tasks-retry.600s")]
)
def test_a_delay_is_written_without_needless_digits(seconds: float, name: str) -> None:
    assert names.delay_queue(seconds) == name


def test_no_algorithm_can_take_the_name_of_a_queue_of_ours() -> None:
    ours = [names.BROKER_DEAD, names.UNROUTED_EXCHANGE, names.delay_queue(5)]
    for name in ours:
        assert not re.fullmatch(ALGORITHM_PATTERN, name)
        assert not re.fullmatch(re.escape(names.algorithm_queue("")) + ALGORITHM_PATTERN, name)
    assert names.algorithm_queue("upper") == "tasks.upper"
