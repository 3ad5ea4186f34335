"""``producer send-many``: files of tasks, broken off and gone on with."""

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

from producer.cli.checkpoint import read_checkpoint
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

    async def publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        self.allowed -= 1
        if self.allowed >= 0:
            return list(await self._publish(tasks))
        if self.trouble == "answer is lost":
            await self._publish(tasks)
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
    again = call("send-many", str(file))
    assert again.exit_code == 0
    assert "2,345 tasks of this file were queued before" in again.stderr
    file.with_name("many.jsonl.sent").unlink()
    assert call("send-many", str(file)).exit_code == 0
    assert queued(gateway) == 2_345
    assert call("send-many", str(file), "--again").exit_code == 0
    assert queued(gateway) == 2 * 2_345
    assert call("send-many", str(file), "--run", "monday").exit_code == 0
    assert call("send-many", str(file), "--run", "monday").exit_code == 0
    assert queued(gateway) == 3 * 2_345


@pytest.mark.parametrize("trouble", ["down", "answer is lost"])
def test_broken_off_half_way_the_same_command_goes_on(
    gateway: Any, troubled: Troubled, call: Any, file: Path, trouble: str
) -> None:
    write(file, 3_500)
    troubled.allowed, troubled.trouble = 2, trouble
    broken = call("send-many", str(file), "--patience", "0.2", "--again")
    assert broken.exit_code == NO_GATEWAY
    assert "2,000 of 3,500 lines are sent; the same command, run again, goes on" in broken.stderr
    troubled.allowed = 2
    done = call("send-many", str(file), "--again")
    assert done.exit_code == 0
    assert "1,500 tasks queued" in done.stderr and "2,000 before" in done.stderr
    assert queued(gateway) == 3_500


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_ended_from_outside_the_same_command_goes_on(
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
        assert "interrupted; 1,000 of 2,500 lines are sent" in told
    checkpoint = read_checkpoint(file.with_name("many.jsonl.sent"))
    assert checkpoint is not None and (checkpoint.line, checkpoint.is_complete) == (1_000, False)
    troubled.allowed = 10
    assert call("send-many", str(file)).exit_code == 0
    assert queued(gateway) == 2_500


def test_bad_lines_are_named_and_the_others_go_on(gateway: Any, call: Any, file: Path) -> None:
    lines = ['{"text": "a"}', "{oops", '{"txt": "a"}', "", '{"text": "b"}', '"c"']
    file.write_text("\n".join(lines))
    done = call("send-many", str(file), "--algorithm", "upper")
    assert done.exit_code == BAD_INPUT
    told = done.stderr.splitlines()
    assert [line.split(":")[0] for line in told[:3]] == ["line 2", "line 3", "line 6"]
    assert "not JSON" in told[0] and "txt is not a field" in told[1] + told[2]
    assert "2 tasks queued" in told[3] and "3 lines were refused" in told[3]
    assert queued(gateway) == 2
    again = call("send-many", str(file), "--algorithm", "upper")
    assert again.exit_code == BAD_INPUT
    assert [line.split(":")[0] for line in again.stderr.splitlines()[:3]] == ["line 2", "line 3", "line 6"]


def test_refused_line_is_tried_again_when_it_may_fit_now(gateway: Any, call: Any, file: Path) -> None:
    file.write_text('{"algorithm": "upper", "payload": {"text": "a"}}\n{"algorithm": "later", "payload": 1}\n')
    refused = call("send-many", str(file))
    assert (refused.exit_code, "no runner ever offered 'later'" in refused.stderr) == (BAD_INPUT, True)
    gateway.watch.catalogue.algorithms["later"] = gateway.watch.catalogue.algorithms["anything"]
    done = call("send-many", str(file))
    assert (done.exit_code, done.stderr.split(" queued")[0]) == (0, "1 task")
    assert queued(gateway) == 2


def test_behind_a_refused_line_all_is_sent_again_and_no_task_is_made_twice(gateway: Any, call: Any, file: Path) -> None:
    good = '{"algorithm": "upper", "payload": {"text": "a"}}\n'
    file.write_text(good + '{"algorithm": "later", "payload": 1}\n' + good)
    assert call("send-many", str(file)).exit_code == BAD_INPUT
    assert queued(gateway) == 2
    gateway.watch.catalogue.algorithms["later"] = gateway.watch.catalogue.algorithms["anything"]
    done = call("send-many", str(file))
    assert (done.exit_code, queued(gateway)) == (0, 3)
    assert "2 tasks queued" in done.stderr and "1 before" in done.stderr
    assert "3 tasks of this file were queued before" in call("send-many", str(file)).stderr


def test_again_makes_new_tasks_also_of_a_file_with_a_refused_line(gateway: Any, call: Any, file: Path) -> None:
    file.write_text('{oops\n{"algorithm": "upper", "payload": {"text": "a"}}\n')
    for count in (1, 2):
        assert call("send-many", str(file), "--again").exit_code == BAD_INPUT
        assert queued(gateway) == count


def test_of_many_bad_lines_some_are_named(gateway: Any, call: Any, file: Path) -> None:
    file.write_text("x\n" * 3_000 + '{"algorithm": "upper", "payload": {"text": "a"}}\n')
    for _ in range(2):
        done = call("send-many", str(file))
        assert done.exit_code == BAD_INPUT
        assert len(done.stderr.splitlines()) == 21
        assert "3,000 lines were refused (2,980 of them not named)" in done.stderr
    assert queued(gateway) == 1


def test_strict_sends_nothing_when_a_line_is_bad(gateway: Any, call: Any, file: Path) -> None:
    file.write_text('{"text": "a"}\n{"txt": "a"}\n')
    done = call("send-many", str(file), "--algorithm", "upper", "--strict")
    assert done.exit_code == BAD_INPUT
    assert "line 2: the payload does not fit upper" in done.stderr
    assert "1 line is bad; nothing was sent" in done.stderr
    assert queued(gateway) == 0
    unknown = call("send-many", str(file), "--algorithm", "uper", "--strict")
    assert "did you mean 'upper'?" in unknown.stderr
    file.write_text('{"text": "a"}\n')
    assert call("send-many", str(file), "--algorithm", "upper", "--strict").exit_code == 0
    assert queued(gateway) == 1


def test_changed_file_is_refused_in_words(gateway: Any, call: Any, file: Path) -> None:
    write(file, 3)
    assert call("send-many", str(file)).exit_code == 0
    with file.open("a") as more:
        more.write('{"algorithm": "upper", "payload": {"text": "more"}}\n')
    changed = call("send-many", str(file))
    assert (changed.exit_code, "another than when its first 3 lines were sent" in changed.stderr) == (BAD_INPUT, True)
    assert queued(gateway) == 3


def test_environment_that_knows_nothing_of_it_is_told(gateway: Any, call: Any, file: Path) -> None:
    write(file, 3)
    assert call("send-many", str(file)).exit_code == 0
    note = file.with_name("many.jsonl.sent")
    note.write_text(note.read_text().replace('"last_id": "', '"last_id": "f'))
    forgotten = call("send-many", str(file))
    assert (forgotten.exit_code, "does not know their tasks any more" in forgotten.stderr) == (BAD_INPUT, True)


def test_standard_input_is_sent_and_leaves_no_note(gateway: Any, call: Any, tmp_path: Path) -> None:
    done = call("send-many", "-", "--algorithm", "upper", stdin='{"text": "a"}\n{"text": "b"}')
    assert (done.exit_code, queued(gateway)) == (0, 2)
    assert not list(tmp_path.glob("*.sent"))
    gateway.succeed("upper", b'"A"')
    again = call("send-many", "-", "--algorithm", "upper", stdin='{"text": "a"}\n{"text": "b"}')
    assert (again.exit_code, queued(gateway)) == (0, 2)
    assert "1 of them were sent before and do not run again (--again makes new tasks)" in again.stderr


def test_new_series_of_standard_input_is_gone_on_with_by_its_name(gateway: Any, troubled: Troubled, call: Any) -> None:
    lines = '{"text": "a"}\n' * 1_500
    troubled.allowed = 1
    options = ("send-many", "-", "--algorithm", "upper", "--patience", "0.1")
    broken = call(*options, "--again", stdin=lines)
    assert broken.exit_code == NO_GATEWAY
    told = re.search(r"run again with (--run \w+) in place of --again, goes on", broken.stderr)
    assert told is not None
    troubled.allowed = 10
    assert call(*options, *told.group(1).split(), stdin=lines).exit_code == 0
    assert queued(gateway) == 1_500


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
        (("FILE", "--sent", "/no/such/place"), "name another place with --sent"),
        (("FILE", "--wait", "--results", "/no/such/place"), "cannot be written"),
        (("FILE", "--wait", "--results", "FILE"), "is the file that is sent"),
    ],
)
def test_what_cannot_be_done_is_told(call: Any, file: Path, arguments: tuple[str, ...], words: str) -> None:
    write(file, 1)
    done = call("send-many", *(str(file) if one == "FILE" else one for one in arguments), "--timeout", "0")
    assert (done.exit_code, words in done.stderr) == (BAD_INPUT, True)
    assert "Traceback" not in done.stderr
