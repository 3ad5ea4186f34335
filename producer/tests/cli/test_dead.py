"""``producer dead``: what failed, and what shall become of it."""

import json
from typing import Any

import pytest

from producer.cli.exit_codes import BAD_INPUT, FAILED

#: Queues and stores differ in nothing that a command sees; their twins in memory are tested by the gateway.
pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)


def fail(gateway: Any, algorithm: str, count: int, message: str = "no colours below 3") -> list[int]:
    """Dead letters of so many tasks, the oldest first."""
    for _ in range(count):
        gateway.post(algorithm, {"text": "a"})
        gateway.fail(algorithm, message)
    letters = gateway.get(f"/dead?limit={count}").json()["dead_letters"]
    return [letter["dead_id"] for letter in reversed(letters)]


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_list_is_a_table_or_lines_of_json(gateway: Any, call: Any) -> None:
    assert call("dead", "list").stderr == "there are no such dead letters\n"
    [first] = fail(gateway, "upper", 1, "no [b]colours[/b] below 3\x1b[31m")
    [second] = fail(gateway, "anything", 1)
    table = call("dead", "list")
    assert table.exit_code == 0
    rows = table.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["dead", str(second), str(first)]
    assert "handler_error" in rows[2] and "no [b]colours[/b] below 3\\x1b[31m" in rows[2]
    assert [letter["dead_id"] for letter in lines(call("dead", "list", "--json").stdout)] == [second, first]
    assert [letter["dead_id"] for letter in lines(call("dead", "list", "--json", "--limit", "1").stdout)] == [second]
    only = lines(call("dead", "list", "--json", "--algorithm", "upper", "--code", "handler_error").stdout)
    assert [letter["dead_id"] for letter in only] == [first]
    assert call("dead", "list", "--json", "--code", "timeout").stdout == ""


def test_show_tells_reason_history_traceback_and_message(gateway: Any, call: Any) -> None:
    [dead_id] = fail(gateway, "upper", 1)
    shown = call("dead", "show", str(dead_id))
    assert shown.exit_code == 0
    for words in (
        "no colours below 3",
        "attempts",
        "Traceback: secret",
        '"payload":{"text":"a"}',
        "waits to be replayed",
    ):
        assert words in shown.stdout, words
    told = json.loads(call("dead", "show", str(dead_id), "--json").stdout)
    assert (told["dead_id"], told["traceback"]) == (dead_id, "Traceback: secret")
    unknown = call("dead", "show", "99999")
    assert (unknown.exit_code, unknown.stdout) == (BAD_INPUT, "")
    assert "99999" in unknown.stderr


def test_replay_by_ids_runs_the_task_again_once(gateway: Any, call: Any) -> None:
    first, second = fail(gateway, "upper", 2)
    done = call("dead", "replay", str(first), str(second))
    assert (done.exit_code, done.stderr) == (0, "2 dead letters were replayed\n")
    task = gateway.succeed("upper", b'"A"')
    assert task.attempt == 2
    assert call("result", task.id).stdout == '"A"\n'
    again = call("dead", "replay", str(first), "99999")
    assert again.exit_code == FAILED
    assert f"dead letter {first}: " in again.stderr and "dead letter 99999: " in again.stderr
    assert "0 dead letters were replayed" in again.stderr
    assert "was replayed at" in call("dead", "show", str(first)).stdout
    assert len(lines(call("dead", "list", "--json", "--all").stdout)) == 2
    assert call("dead", "list", "--json").stdout == ""


def test_replay_by_filter_asks_first(gateway: Any, call: Any) -> None:
    fail(gateway, "upper", 2)
    fail(gateway, "anything", 1)
    nobody = call("dead", "replay", "--algorithm", "upper")
    assert (nobody.exit_code, "2 dead letters? nobody is there to ask; say --yes" in nobody.stderr) == (BAD_INPUT, True)
    assert len(lines(call("dead", "list", "--json").stdout)) == 3
    done = call("dead", "replay", "--algorithm", "upper", "--code", "handler_error", "--yes")
    assert (done.exit_code, done.stderr) == (0, "2 dead letters were replayed\n")
    assert [letter["algorithm"] for letter in lines(call("dead", "list", "--json").stdout)] == ["anything"]


def test_filter_is_followed_to_the_end(gateway: Any, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(gateway, "upper", 7)
    monkeypatch.setattr("producer.client.calls.PAGE_SIZE", 2)
    assert len(lines(call("dead", "list", "--json").stdout)) == 7
    assert call("dead", "replay", "--all", "--yes", "--limit", "3").stderr == "3 dead letters were replayed\n"
    assert call("dead", "discard", "--all", "--yes").stderr == "4 dead letters were discarded\n"
    assert call("dead", "replay", "--all", "--yes").stderr == "there are no such dead letters\n"


def test_discard_keeps_it_readable(gateway: Any, call: Any) -> None:
    [dead_id] = fail(gateway, "upper", 1)
    assert call("dead", "discard", str(dead_id)).stderr == "1 dead letter was discarded\n"
    assert "was discarded at" in call("dead", "show", str(dead_id)).stdout
    refused = call("dead", "replay", str(dead_id))
    assert (refused.exit_code, f"dead letter {dead_id}: " in refused.stderr) == (FAILED, True)


@pytest.mark.parametrize("act", ["replay", "discard"])
def test_which_ones_must_be_said(call: Any, act: str) -> None:
    nothing = call("dead", act)
    assert (nothing.exit_code, "which ones?" in nothing.stderr) == (BAD_INPUT, True)
    both = call("dead", act, "1", "--algorithm", "upper")
    assert (both.exit_code, "not both" in both.stderr) == (BAD_INPUT, True)
    assert call("dead", act, "--code", "no_such_code", "--yes").exit_code == BAD_INPUT
    assert call("dead", act, "--algorithm", "No Name", "--yes").exit_code == BAD_INPUT
