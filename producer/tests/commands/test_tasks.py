"""Commands about single tasks against a real gateway."""

import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from producer.algorithm_table import fields
from producer.commands.ending import BAD_INPUT, FAILED, NO_GATEWAY, NOT_FINISHED
from producer.payload_argument import BadPayload, read_payload


def in_background(function: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def test_send_prints_the_id_alone(gateway: Any, call: Any) -> None:
    done = call("send", "upper", '{"text": "a"}')
    assert done.exit_code == 0
    assert gateway.get(f"/tasks/{done.stdout.strip()}").json()["state"] == "queued"


def test_send_with_wait_prints_the_result_alone(gateway: Any, call: Any) -> None:
    runner = in_background(gateway.succeed, "upper", '"Ä"'.encode())
    done = call("send", "upper", '{"text": "ä"}', "--wait", "--id", "mine")
    runner.join()
    assert (done.exit_code, done.stdout, done.stderr) == (0, '"Ä"\n', "")


def test_failed_task_is_told_in_a_sentence(gateway: Any, call: Any) -> None:
    runner = in_background(gateway.fail, "upper", "no colours below 3\x1b[31m")
    done = call("send", "upper", '{"text": "a"}', "--wait", "--id", "mine")
    runner.join()
    assert (done.exit_code, done.stdout) == (FAILED, "")
    assert done.stderr == "task mine failed (handler_error): no colours below 3 [31m\n"


def test_wait_that_is_over_says_how_to_go_on(call: Any) -> None:
    done = call("send", "upper", '{"text": "a"}', "--wait", "--timeout", "0.2", "--id", "mine")
    assert (done.exit_code, done.stdout) == (NOT_FINISHED, "")
    assert "producer result mine --wait" in done.stderr


def test_result_of_each_state(gateway: Any, call: Any) -> None:
    call("send", "upper", '{"text": "a"}', "--id", "mine")
    assert call("result", "mine").exit_code == NOT_FINISHED
    gateway.succeed("upper", b'{"n":1}')
    assert json.loads(call("result", "mine", "--wait").stdout) == {"n": 1}
    nobody = call("result", "nobody")
    assert (nobody.exit_code, "no task 'nobody'" in nobody.stderr) == (BAD_INPUT, True)
    assert call("result", "../status").exit_code == BAD_INPUT


def test_cancel(gateway: Any, call: Any) -> None:
    call("send", "upper", '{"text": "a"}', "--id", "mine")
    done = call("cancel", "mine")
    assert (done.exit_code, done.stderr) == (0, "task mine is cancelled\n")
    cancelled = call("result", "mine")
    assert (cancelled.exit_code, cancelled.stderr) == (FAILED, "task mine was cancelled\n")
    call("send", "anything", "1", "--id", "other")
    gateway.succeed("anything", b"1")
    late = call("cancel", "other")
    assert (late.exit_code, "has ended already" in late.stderr) == (FAILED, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("upper", "{oops"), "in single quotes"),
        (("upper", "@/no/such/file"), "cannot be read"),
        (("upper", '{"txt": "a"}'), "text is missing"),
        (("uper", "{}"), "did you mean 'upper'?"),
        (("upper", '{"text": "a"}', "--id", "a b"), "'id' must be"),
    ],
)
def test_bad_input_is_told_in_a_sentence(call: Any, arguments: tuple[str, ...], words: str) -> None:
    done = call("send", *arguments)
    assert (done.exit_code, done.stdout) == (BAD_INPUT, "")
    assert words in done.stderr


def test_payload_from_standard_input_and_from_a_file(gateway: Any, call: Any, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"text": "from a file"}')
    call("send", "upper", "-", stdin='{"text": "piped"}')
    assert gateway.succeed("upper", b"1").payload == b'{"text":"piped"}'
    call("send", "upper", f"@{file}")
    assert gateway.succeed("upper", b"1").payload == b'{"text":"from a file"}'


def test_payload_that_is_too_large_is_not_read_to_the_end() -> None:
    with pytest.raises(BadPayload, match="more than 16777216 bytes"):
        read_payload("-", io.BytesIO(b" " * (17 * 1024 * 1024)))


def test_algorithms_are_a_table(call: Any) -> None:
    done = call("algorithms")
    assert done.exit_code == 0
    [row] = [line for line in done.stdout.splitlines() if line.startswith("upper")]
    assert "text: string" in row


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        (None, "?"),
        ({"properties": {"k": {"type": "string"}}}, "k: string (optional)"),
        (
            {"properties": {f"f{n}": {} for n in range(10)}, "required": [f"f{n}" for n in range(10)]},
            "f0: any, f1: any, f2: any, f3: any, f4: any, f5: any, f6: any, f7: any, and 2 more",
        ),
        ({"properties": {"text": {"type": "string"}}, "required": ["text"]}, "text: string"),
        ({"properties": {"k": {"type": "integer", "default": 3}}}, "k: integer = 3"),
        (
            {"properties": {"m": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}}},
            "m: integer | null = null",
        ),
        (
            {"properties": {"i": {"$ref": "#/$defs/I"}}, "$defs": {"I": {"type": "object"}}, "required": ["i"]},
            "i: object",
        ),
        (
            {"properties": {"r": {"$ref": "#/$defs/R"}}, "$defs": {"R": {"$ref": "#/$defs/R"}}, "required": ["r"]},
            "r: R",
        ),
        ({"properties": {"t": {"type": "array", "items": {"type": "string"}}}, "required": ["t"]}, "t: list of string"),
    ],
)
def test_fields_in_one_line(schema: dict[str, Any] | None, shown: str) -> None:
    assert fields(schema) == shown


def test_without_gateway_the_command_says_how_to_start_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "producer", "send", "upper", "{}", "--gateway", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (NO_GATEWAY, "")
    assert done.stderr.strip() == (
        "no gateway answers at http://127.0.0.1:9; start the environment with `worker up`, or set GATEWAY_URL"
    )


def test_gateway_module_names_worker_up() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "producer.gateway"], capture_output=True, text=True, timeout=30, check=False, env={}
    )
    assert (done.returncode, "worker up" in done.stderr) == (2, True)
