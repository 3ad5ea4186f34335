"""``producer send-many``: files of tasks, sent once, broken off, corrected and sent again."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from producer.cli.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, NO_GATEWAY, NOT_FINISHED
from taskqueue.errors import QueueUnavailable
from taskqueue.tasks import NewTask, Published

#: Queues and stores differ in nothing that a command sees; their twins in memory are tested by the gateway.
pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)


class Troubled:
    """A queue that takes so many publishes and then has trouble; `reached` tells when, `over` ends it."""

    def __init__(self, publish: Any) -> None:
        self._publish = publish
        self.allowed = 10_000
        self.trouble = "down"
        self.reached = threading.Event()
        self.over = threading.Event()

    async def publish(self, tasks: Sequence[NewTask], **options: Any) -> list[Published]:
        self.allowed -= 1
        if self.allowed >= 0:
            return list(await self._publish(tasks, **options))
        if self.trouble == "answer is lost":
            await self._publish(tasks, **options)
        self.reached.set()
        while self.trouble == "silent" and not self.over.is_set():
            await asyncio.sleep(0.01)
        raise QueueUnavailable("test")


@pytest.fixture
def troubled(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Troubled]:
    """The gateway's queue."""
    trouble = Troubled(gateway.queue.publish)
    monkeypatch.setattr(gateway.queue, "publish", trouble.publish)
    yield trouble
    trouble.over.set()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "many.jsonl"


def write(file: Path, count: int) -> None:
    file.write_text("".join(f'{{"algorithm": "upper", "payload": {{"text": "{n}"}}}}\n' for n in range(count)))


def queued(gateway: Any) -> int:
    """Tasks that there are."""
    return sum(sum(one.by_state.values()) for one in gateway.run(gateway.store.counts()))


def test_each_line_is_a_task_and_the_same_file_is_the_same_tasks(gateway: Any, call: Any, file: Path) -> None:
    write(file, 2_345)
    done = call("send-many", str(file))
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("2,345 tasks queued in ")
    assert queued(gateway) == 2_345
    assert call("send-many", str(file)).exit_code == 0
    assert queued(gateway) == 2_345
    assert call("send-many", str(file), "--again").exit_code == 0
    assert queued(gateway) == 2 * 2_345
    assert call("send-many", str(file), "--run", "monday").exit_code == 0
    assert call("send-many", str(file), "--run", "monday").exit_code == 0
    assert queued(gateway) == 3 * 2_345


def test_nothing_is_left_beside_the_file(call: Any, file: Path) -> None:
    write(file, 3)
    assert call("send-many", str(file)).exit_code == 0
    assert [path.name for path in file.parent.glob("many*")] == ["many.jsonl"]


@pytest.mark.parametrize("trouble", ["down", "answer is lost"])
def test_broken_off_half_way_the_same_command_sends_the_rest(
    gateway: Any, troubled: Troubled, call: Any, file: Path, trouble: str
) -> None:
    write(file, 3_500)
    troubled.allowed, troubled.trouble = 2, trouble
    broken = call("send-many", str(file), "--patience", "0.2")
    assert broken.exit_code == NO_GATEWAY
    assert "2,000 tasks accepted, up to line 2,000; the same command, run again, sends the rest" in broken.stderr
    gateway.succeed("upper", b'"A"')
    troubled.allowed = 4
    done = call("send-many", str(file))
    assert done.exit_code == 0
    assert "3,499 tasks queued" in done.stderr
    assert "; 1 task sent before, not run again (--again makes new tasks)" in done.stderr
    assert queued(gateway) == 3_500


def test_new_run_that_is_broken_off_is_told_by_its_name(
    gateway: Any, troubled: Troubled, call: Any, file: Path
) -> None:
    write(file, 1_500)
    assert call("send-many", str(file)).exit_code == 0
    troubled.allowed = 1
    broken = call("send-many", str(file), "--patience", "0.1", "--again")
    assert broken.exit_code == NO_GATEWAY
    told = re.search(r"the same command, run again with (--run \w+) in place of --again, sends the rest", broken.stderr)
    assert told is not None
    troubled.allowed = 10
    assert call("send-many", str(file), *told.group(1).split()).exit_code == 0
    assert queued(gateway) == 2 * 1_500


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_ended_from_outside_the_same_command_sends_the_rest(
    gateway: Any, troubled: Troubled, call: Any, file: Path, by: signal.Signals
) -> None:
    write(file, 2_500)
    troubled.allowed, troubled.trouble = 1, "silent"
    process = subprocess.Popen(
        [sys.executable, "-m", "producer", "send-many", str(file), "--gateway", gateway.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert troubled.reached.wait(30)
        os.kill(process.pid, by)
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        troubled.over.set()
    if by == signal.SIGINT:
        assert process.returncode == INTERRUPTED
        assert "interrupted; 1,000 tasks accepted, up to line 1,000; the same command, run again, sends" in told
    troubled.allowed = 10
    assert call("send-many", str(file)).exit_code == 0
    assert queued(gateway) == 2_500


def test_bad_lines_are_named_and_corrected_in_their_places(gateway: Any, call: Any, file: Path) -> None:
    lines = ['{"text": "a"}', "{oops", '{"txt": "a"}', "", '{"text": "b"}', '"c"']
    file.write_text("\n".join(lines))
    for _ in range(2):
        done = call("send-many", str(file), "--algorithm", "upper")
        assert done.exit_code == BAD_INPUT
        told = done.stderr.splitlines()
        assert [line.split(":")[0] for line in told[:3]] == ["line 2", "line 3", "line 6"]
        assert "not JSON" in told[0] and "txt is not a field" in told[1] + told[2]
        assert "2 tasks queued" in told[3] and "3 lines refused: correct them, or empty them" in told[3]
        assert told[3].endswith("; the same command, run again, sends them")
        assert queued(gateway) == 2
    lines[1:3], lines[5] = ['{"text": "corrected"}', ""], '{"text": "c"}'
    file.write_text("\n".join([*lines, '{"text": "appended"}']))
    assert call("send-many", str(file), "--algorithm", "upper").exit_code == 0
    assert queued(gateway) == 2 + 3


def test_refused_line_is_tried_again_when_it_may_fit_now(gateway: Any, call: Any, file: Path) -> None:
    good = '{"algorithm": "upper", "payload": {"text": "a"}}\n'
    file.write_text(good + '{"algorithm": "later", "payload": 1}\n' + good)
    refused = call("send-many", str(file))
    assert (refused.exit_code, "no runner ever offered 'later'" in refused.stderr) == (BAD_INPUT, True)
    gateway.watch.catalogue.algorithms["later"] = gateway.watch.catalogue.algorithms["anything"]
    assert call("send-many", str(file)).exit_code == 0
    assert queued(gateway) == 3


def test_lines_with_ids_of_their_own_are_one_task_and_no_other_content_takes_its_place(
    gateway: Any, call: Any, file: Path
) -> None:
    file.write_text('{"algorithm": "upper", "payload": {"text": "a"}, "id": "mine"}\n')
    for new_tasks in ((), (), ("--again",)):
        assert call("send-many", str(file), *new_tasks).exit_code == 0
        assert queued(gateway) == 1
    file.write_text('{"algorithm": "upper", "payload": {"text": "b"}, "id": "mine"}\n')
    other = call("send-many", str(file))
    assert (other.exit_code, queued(gateway)) == (BAD_INPUT, 1)
    assert other.stderr.startswith("line 1: ") and "mine" in other.stderr


def test_of_many_bad_lines_some_are_named(gateway: Any, call: Any, file: Path) -> None:
    file.write_text("x\n" * 3_000 + '{"algorithm": "upper", "payload": {"text": "a"}}\n')
    for _ in range(2):
        done = call("send-many", str(file))
        assert done.exit_code == BAD_INPUT
        assert len(done.stderr.splitlines()) == 21
        assert "3,000 lines refused (2,980 of them not named)" in done.stderr
    assert queued(gateway) == 1


def test_strict_sends_nothing_when_a_line_is_bad(gateway: Any, call: Any, file: Path) -> None:
    file.write_text('{"text": "a"}\n{"txt": "a"}\n')
    done = call("send-many", str(file), "--algorithm", "upper", "--strict")
    assert done.exit_code == BAD_INPUT
    assert "line 2: the payload does not fit upper" in done.stderr
    assert "1 bad line; nothing was sent" in done.stderr
    assert queued(gateway) == 0
    unknown = call("send-many", str(file), "--algorithm", "uper", "--strict")
    assert "did you mean 'upper'?" in unknown.stderr
    file.write_text('{"text": "a"}\n')
    assert call("send-many", str(file), "--algorithm", "upper", "--strict").exit_code == 0
    assert queued(gateway) == 1


def test_standard_input_is_sent_and_checked_as_a_file_is(gateway: Any, call: Any) -> None:
    lines = '{"text": "a"}\n{"text": "b"}'
    bad = call("send-many", "-", "--algorithm", "upper", "--strict", stdin=f"{lines}\nx\n")
    assert (bad.exit_code, queued(gateway)) == (BAD_INPUT, 0)
    done = call("send-many", "-", "--algorithm", "upper", "--strict", stdin=lines)
    assert (done.exit_code, queued(gateway)) == (0, 2)
    gateway.succeed("upper", b'"A"')
    again = call("send-many", "-", "--algorithm", "upper", stdin=lines)
    assert (again.exit_code, queued(gateway)) == (0, 2)
    assert "1 task queued" in again.stderr and "1 task sent before, not run again" in again.stderr


def test_results_come_in_the_order_of_the_lines(gateway: Any, call: Any, file: Path, tmp_path: Path) -> None:
    lines = [
        {"algorithm": "upper", "payload": {"text": "a"}, "id": "first"},
        {"algorithm": "upper", "payload": {}},
        {"algorithm": "anything", "payload": 3},
        {"algorithm": "upper", "payload": {"text": "x"}, "id": "first"},
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "{oops\n")
    out = tmp_path / "out.jsonl"

    def run() -> None:
        gateway.fail("anything", "too small")
        gateway.succeed("upper", '"Ä"'.encode())

    runner = threading.Thread(target=run)
    runner.start()
    done = call("send-many", str(file), "--wait", "--results", str(out))
    runner.join()
    assert done.exit_code == BAD_INPUT
    assert "all have ended: 1 succeeded, 1 failed, 3 refused" in done.stderr
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(entry["line"], entry["state"]) for entry in entries] == [
        (1, "succeeded"),
        (2, "refused"),
        (3, "failed"),
        (4, "refused"),
        (5, "refused"),
    ]
    assert entries[0] == {"line": 1, "id": "first", "state": "succeeded", "result": "Ä"}
    assert entries[2]["error"] == {"code": "handler_error", "message": "too small"}
    assert [entries[n]["error"]["code"] for n in (1, 3, 4)] == ["invalid_payload", "id_conflict", "malformed"]


def test_wait_that_is_over_tells_the_others_as_they_are(gateway: Any, call: Any, file: Path) -> None:
    file.write_text('{"algorithm": "upper", "payload": {"text": "a"}}\n{"algorithm": "anything", "payload": 1}\n')
    assert call("send-many", str(file)).exit_code == 0
    gateway.fail("anything", "no")
    waited = call("send-many", str(file), "--wait", "--timeout", "0.3", "--results", "-")
    assert waited.exit_code == FAILED
    assert [json.loads(line)["state"] for line in waited.stdout.splitlines()] == ["queued", "failed"]
    assert "1 failed, 1 queued; the same command, run again, waits" in waited.stderr
    gateway.run(gateway.store.cancel(json.loads(waited.stdout.splitlines()[0])["id"]))
    file.write_text('{"algorithm": "upper", "payload": {"text": "b"}}\n')
    assert call("send-many", str(file), "--again", "--wait", "--timeout", "0.1").exit_code == NOT_FINISHED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-file",), "cannot be read"),
        ((".",), "cannot be read"),
        (("FILE", "--results", "out"), "--results needs --wait"),
        (("FILE", "--algorithm", "No Name"), "is not a name"),
        (("FILE", "--wait", "--results", "/no/such/place"), "cannot be written"),
        (("FILE", "--wait", "--results", "FILE"), "is the file that is sent"),
    ],
)
def test_what_cannot_be_done_is_told(call: Any, file: Path, arguments: tuple[str, ...], words: str) -> None:
    write(file, 1)
    done = call("send-many", *(str(file) if one == "FILE" else one for one in arguments), "--timeout", "0")
    assert (done.exit_code, words in done.stderr) == (BAD_INPUT, True)
    assert "Traceback" not in done.stderr
