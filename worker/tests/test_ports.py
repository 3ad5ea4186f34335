"""A taken port is told before anything starts."""

import os
import socket
from collections.abc import Callable

from worker.ports import PortUse, environment_of, is_free, listener_pid, taken_sentence


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
