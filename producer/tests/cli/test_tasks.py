"""Commands about single tasks against a real gateway."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from environments import until

from producer.cli.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, NO_GATEWAY, NOT_FINISHED
from producer.cli.tables import fields
from producer.cli.tasks import read_payload
from producer.errors import BadInput
from taskqueue.tasks import Cancelled, Placement


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


def test_send_with_a_group_and_a_delay(gateway: Any, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, usual = [], gateway.queue.publish

    async def publish(tasks: Any, **options: Any) -> Any:
        sent.extend(tasks)
        return await usual(tasks, **options)

    monkeypatch.setattr(gateway.queue, "publish", publish)
    before = time.time()
    done = call("send", "upper", '{"text": "a"}', "--group", "acme", "--delay", "60.5", "--expires", "90")
    assert (done.exit_code, done.stderr) == (0, "")
    [task] = sent
    assert (task.id, task.group) == (done.stdout.strip(), "acme")
    assert before + 60.5 <= task.not_before <= time.time() + 60.5
    assert task.expires_at == pytest.approx(task.not_before + 29.5)


def test_failed_task_is_told_in_a_sentence(gateway: Any, call: Any) -> None:
    runner = in_background(gateway.fail, "upper", "no colours below 3\x1b[31m")
    done = call("send", "upper", '{"text": "a"}', "--wait", "--id", "mine")
    runner.join()
    assert (done.exit_code, done.stdout) == (FAILED, "")
    assert done.stderr == "task mine failed (handler_error): no colours below 3\\x1b[31m\n"


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


def test_pause_and_resume(gateway: Any, call: Any) -> None:
    done = call("pause", "upper")
    assert (done.exit_code, done.stderr) == (0, "upper is paused: its tasks wait until: producer resume upper\n")
    waits = call("send", "upper", '{"text": "a"}', "--id", "mine")
    assert waits.exit_code == 0 and "paused since" in gateway.get("/tasks/mine").json()["waiting_for"]
    assert "1 (paused)" in call("algorithms").stdout
    done = call("resume", "upper")
    assert (done.exit_code, done.stderr) == (0, "upper is not paused\n")
    for wrong in ("uper", "../tasks"):
        assert call("pause", wrong).exit_code == BAD_INPUT


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
        (("upper", ""), "it is empty"),
        (("upper", '{"text": "a", "text": "b"}'), "duplicate key 'text'"),
        (("upper", '{"txt": "a"}'), "text is missing"),
        (("uper", "{}"), "did you mean 'upper'?"),
        (("upper", '{"text": "a"}', "--id", "a b"), "'id' must be"),
        (("upper", '{"text": "a"}', "--group", "a b"), "'group' must be 1 to 64"),
        (("upper", '{"text": "a"}', "--delay", "604801"), "'delay_seconds' must be a number"),
        (("upper", '{"text": "a"}', "--delay", "9", "--expires", "9"), "'expires_seconds' must be more than"),
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


def test_byte_order_mark_is_passed_over_wherever_a_payload_comes_from(gateway: Any, call: Any) -> None:
    case = Path(__file__).parents[3] / "tests" / "cases" / "bom_send" / "bom.json"
    text = case.read_text(encoding="utf-8")
    assert text.startswith("\ufeff")
    call("send", "upper", f"@{case}")
    assert gateway.succeed("upper", b"1").payload == b'{"text":"bom"}'
    call("send", "upper", "-", stdin=text)
    assert gateway.succeed("upper", b"1").payload == b'{"text":"bom"}'
    for words, stdin, sent in (
        ([str(case)], None, "bom"),
        (["-"], '\ufeff{"text": "piped"}', "piped"),
    ):
        done = call("send-many", *words, "--algorithm", "upper", stdin=stdin)
        assert done.exit_code == 0, done.stderr
        assert json.loads(gateway.succeed("upper", b"1").payload) == {"text": sent}


def test_results_are_shown_and_obeyed_by_no_terminal(gateway: Any, call: Any) -> None:
    result = "\x9b2J\u202e\u2066\u200b\u2028\x7f ä"
    for task_id in ("one", "two"):
        gateway.post("anything", 1, id=task_id)
        gateway.succeed("anything", json.dumps(result).encode())
    shown = {words: call(*words).stdout for words in (("result", "one"), ("result", "one", "two"))}
    shown[("result", "one", "--json")] = call("result", "one", "--json").stdout
    for text in shown.values():
        assert text.replace("\n", "").isprintable() and "ä" in text
    assert json.loads(shown["result", "one"]) == result
    assert json.loads(shown["result", "one", "--json"])["result"] == result


def test_version(call: Any) -> None:
    done = call("--version")
    assert (done.exit_code, done.stdout.split()[0]) == (0, "producer")


def test_help_reads_as_plain_text(call: Any) -> None:
    for words in ([], ["send"], ["send-many"], ["result"], ["cancel"], ["list"], ["algorithms"], ["dead"]):
        shown = call(*words, "--help").stdout
        assert "`" not in shown and "Usage" in shown


def test_payload_that_is_too_large_is_not_read_to_the_end() -> None:
    with pytest.raises(BadInput, match="more than 16777216 bytes"):
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
        "no gateway answers at http://127.0.0.1:9 (from --gateway); "
        "start the environment with `worker up`, or set GATEWAY_URL"
    )


def test_gateway_module_names_worker_up() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "producer.gateway"], capture_output=True, text=True, timeout=30, check=False, env={}
    )
    assert (done.returncode, "worker up" in done.stderr) == (2, True)


def test_several_results_are_lines_of_json(gateway: Any, call: Any) -> None:
    for task_id in ("a", "b", "c"):
        call("send", "upper", '{"text": "a"}', "--id", task_id)
    gateway.succeed("upper", b'"A"')
    gateway.fail("upper", "no")
    several = call("result", "a", "b", "c", "nobody")
    assert several.exit_code == BAD_INPUT
    assert [json.loads(line) for line in several.stdout.splitlines()] == [
        {"id": "a", "state": "succeeded", "result": "A"},
        {"id": "b", "state": "failed", "error": {"code": "handler_error", "message": "no"}},
        {"id": "c", "state": "queued"},
    ]
    assert call("result", "a", "b", "c").exit_code == FAILED
    assert call("result", "a", "c").exit_code == NOT_FINISHED
    assert json.loads(call("result", "a", "--json").stdout)["result"] == "A"


def test_several_are_cancelled_and_each_is_told(gateway: Any, call: Any) -> None:
    for task_id in ("a", "b"):
        call("send", "upper", '{"text": "a"}', "--id", task_id)
    running = gateway.take("upper")
    gateway.run(gateway.store.place([(running, Placement(running.id, 1, "text-1", "boot"))]))
    done = call("cancel", "a", "b")
    assert done.exit_code == 0
    assert done.stderr == "task a is running; its runner is being asked to stop\ntask b is cancelled\n"
    assert call("cancel", "b").stderr == "task b is cancelled\n"
    assert call("cancel", "nobody").stderr == "nobody has seen a task nobody yet; should it come, it will not run\n"
    gateway.settle(Cancelled(running))
    gateway.post("anything", 1, id="c")
    gateway.succeed("anything", b"1")
    late = call("cancel", "c", "a", "no spaces")
    assert late.exit_code == BAD_INPUT
    assert "The task 'c' has ended already: it is succeeded." in late.stderr
    assert "task a is cancelled" in late.stderr


def test_list_is_a_table_or_lines_of_json(gateway: Any, call: Any) -> None:
    assert call("list").stderr == "there are no such tasks\n"
    for algorithm, task_id in (("upper", "a"), ("anything", "b"), ("upper", "c")):
        gateway.post(algorithm, {"text": "a"}, id=task_id)
    gateway.fail("anything", "no [b]colours")
    rows = call("list").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["id", "c", "b", "a"]
    assert "no [b]colours" in " ".join(rows)

    def listed(*options: str) -> list[str]:
        return [json.loads(line)["id"] for line in call("list", "--json", *options).stdout.splitlines()]

    assert listed() == ["c", "b", "a"]
    assert listed("--limit", "1") == ["c"]
    assert listed("--algorithm", "upper") == ["c", "a"]
    assert listed("--state", "failed", "--state", "running") == ["b"]


def test_algorithms_as_lines_of_json(call: Any) -> None:
    told = [json.loads(line) for line in call("algorithms", "--json").stdout.splitlines()]
    assert sorted(one["name"] for one in told) == ["anything", "upper"]


def test_task_that_waits_for_a_runner_says_so(gateway: Any, call: Any) -> None:
    gateway.watch.catalogue.algorithms["upper"].runners.clear()
    done = call("send", "upper", '{"text": "a"}', "--wait", "--timeout", "1", "--id", "mine")
    assert done.exit_code == NOT_FINISHED
    assert done.stderr.count("task mine waits: no runner offers 'upper' now") == 1
    assert "is queued after 1 s (no runner offers 'upper' now" in done.stderr


def test_task_that_expires_is_sent_with_its_time(gateway: Any, call: Any) -> None:
    call("send", "upper", '{"text": "a"}', "--id", "mine", "--expires", "90")
    row = gateway.run(gateway.store.get("mine"))
    assert 80 < row.expires_at - row.created_at < 100


def test_reader_that_has_seen_enough_is_no_error(gateway: Any) -> None:
    for number in range(3):
        gateway.post("anything", "x" * 10_000, id=f"t{number}")
        gateway.fail("anything", "y" * 1_000)
    command = [sys.executable, "-m", "producer", "dead", "list", "--json", "--gateway", gateway.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) in (0, 1)
    assert "Traceback" not in told and "Exception" not in told


def test_interrupted_wait_says_how_to_go_on(gateway: Any) -> None:
    command = [sys.executable, "-m", "producer", "send", "upper", '{"text": "a"}', "--wait", "--id", "mine"]
    process = subprocess.Popen(
        [*command, "--gateway", gateway.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: gateway.get("/tasks/mine").status_code == 200, "the task is queued")
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (INTERRUPTED, "")
    assert told == (
        "task mine goes on; fetch its result with: producer result mine --wait; or stop it with: producer cancel mine\n"
    )


def on_a_terminal(url: str, columns: int, *words: str) -> list[str]:
    """What a person sees on a terminal of so many columns, line by line."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "producer", *words, "--gateway", url]
    variables = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(columns)}
    process = subprocess.Popen(command, env=variables, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
        while data := terminal.read(65_536):
            seen += data
    assert process.wait(30) == 0, seen
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).splitlines()]


@pytest.mark.parametrize("columns", [60, 80])
def test_lists_on_a_terminal_have_each_id_whole_on_one_line(gateway: Any, columns: int) -> None:
    ids = [f"{number:032x}" for number in range(2)]
    for task_id in ids:
        gateway.post("anything", 1, id=task_id)
    gateway.fail("anything", "no [b]colours[/b] below 3 and " + "a long reason " * 10)
    lists = {command: on_a_terminal(gateway.url, columns, *command.split()) for command in ("list", "dead list")}
    for task_id in ids:
        assert any(task_id in line.split() for line in lists["list"])
    assert any(ids[0] in line.split() for line in lists["dead list"])
    for lines in lists.values():
        assert max(map(len, lines)) <= columns
        words = "anything", "handler_error"
        assert all(any(word in re.split(r"[ :]", line) for line in lines) for word in words), lines


def test_what_a_runner_says_is_neither_obeyed_nor_markup(gateway: Any, call: Any) -> None:
    upper = gateway.watch.catalogue.algorithms["upper"].description
    upper.summary = "[/nonsense] [red]x[/red] \x1b]0;title\x07\x9b2J\u202e\u2028"
    told = call("algorithms").stdout
    assert "[/nonsense] [red]x[/red]" in " ".join(told.split())
    assert told.replace("\n", "").isprintable()
    assert call("algorithms", "--json").stdout.replace("\n", "").isprintable()
