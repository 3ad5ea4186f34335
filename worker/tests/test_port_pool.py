"""Ports for runners."""

import pytest

from worker.errors import PortTaken
from worker.port_pool import PortPool


def test_lowest_free_port_is_taken_and_given_back() -> None:
    pool = PortPool(8101, lambda port: port != 8102, not_these=[8103])
    pool.reserve(8101)
    assert [pool.take(), pool.take()] == [8104, 8105]
    pool.give_back(8101)
    assert pool.take() == 8101


def test_no_port_left_is_told_with_the_setting() -> None:
    with pytest.raises(PortTaken, match="RUNNER_PORTS_START"):
        PortPool(65000, lambda port: False).take()
