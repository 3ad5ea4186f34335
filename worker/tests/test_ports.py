"""A taken port is told before anything starts; runners get the lowest free ones."""

import os
import socket
from collections.abc import Callable

import pytest

from worker.errors import PortTaken
from worker.plan import PortUse
from worker.ports import PortPool, environment_of, is_free, listener_pid, taken_sentence


def test_free_port_is_free(free_port: Callable[[], int]) -> None:
    port = free_port()
    assert is_free("127.0.0.1", port)
    assert listener_pid(port) is None


def test_taken_port_is_told_with_its_setting_and_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        sentence = taken_sentence("127.0.0.1", PortUse(port, "the gateway", "GATEWAY_PORT"))
    assert f"the gateway needs port {port}" in sentence
    assert f"process {os.getpid()}" in sentence
    assert "GATEWAY_PORT" in sentence


def test_environment_of_a_process_that_is_gone_is_empty() -> None:
    assert environment_of(2**22 + 1) == {}
    assert environment_of(os.getpid())


def test_lowest_free_port_is_taken_and_given_back() -> None:
    pool = PortPool(8101, lambda port: port != 8102, not_these=[8103])
    pool.reserve(8101)
    assert [pool.take(), pool.take()] == [8104, 8105]
    pool.give_back(8101)
    assert pool.take() == 8101


def test_no_port_left_is_told_with_the_setting() -> None:
    with pytest.raises(PortTaken, match="RUNNER_PORTS_START"):
        PortPool(65000, lambda port: False).take()
