"""What was typed becomes a report and an exit code; each check fails on a runner that is wrong in that alone."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runnerlib.contract.identity import RunnerKeys, run_token_of
from worker.conformance.checks import CHECKS, LEVELS, Check, Level
from worker.conformance.client import NOT_GIVEN, Client, Target, Timing
from worker.conformance.command import (
    Finding,
    Report,
    Verdict,
    examine,
    read_json,
    read_level,
    read_token,
    read_url,
    try_check,
)
from worker.conformance.target import BadRequest

RUNNER_TOKEN = RunnerKeys(["k" * 40]).runner_token("nap")
RUN_TOKEN = run_token_of(RUNNER_TOKEN)
TIMING = Timing(answer=5, slow=20, short_wait=0.1, second_caller=0.6)
SLOW = {"seconds": 1.5}
TARGET = Target("nap", {"seconds": 0.01}, {"second": 1}, SLOW)
#: Fault → the checks that must fail, where it is not the one that it is called after.
FAULTS = {
    "boot: none": {"boot"},
    "problems: no code": {"problems"},
    "problems: traceback": {"problems"},
    "too_large: silent": {"too_large"},
    "schemas: no schema": {"schemas"},
    "schemas: other result": {"schemas"},
    "again: conflict": {"again"},
    # Without a result nothing else of this level can be seen either.
    "run": {"run", "task_headers"},
    "batch": {"batch", "neighbours"},
    **{check.name: {check.name} for check in CHECKS if check.name not in ("run", "batch")},
}


def _worker(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "worker", "conformance", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_levels_are_asked_for_by_name_or_number() -> None:
    assert (read_level("Durable"), read_level("4")) == (Level.DURABLE, Level.BATCHED)
    with pytest.raises(BadRequest, match="'5' is no level; there are 1 or plain, 2 or observed"):
        read_level("5")


def test_an_address_needs_no_scheme() -> None:
    assert read_url("127.0.0.1:8101") == "http://127.0.0.1:8101"
    with pytest.raises(BadRequest, match="ftp://there"):
        read_url("ftp://there")


def test_payloads_are_json_and_null_is_one() -> None:
    assert read_json("--payload", None) is NOT_GIVEN
    assert read_json("--payload", "null") is None
    with pytest.raises(BadRequest, match="--payload is not JSON"):
        read_json("--payload", "{")


def test_what_cannot_be_done_ends_with_a_sentence(free_port: Any) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    for words, code, says in (
        ([nobody], 1, f"nobody answers at http://{nobody}"),
        ([nobody, "--level", "none"], 2, "'none' is no level"),
        ([nobody, "--slow", "{"], 2, "--slow is not JSON"),
    ):
        done = _worker(*words)
        assert (done.returncode, done.stdout) == (code, "")
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_the_exit_code_tells_whether_the_level_is_reached(sound_runner: str) -> None:
    plain = _worker(sound_runner)
    assert plain.returncode == 0, plain.stdout
    assert "level 2 of 4, observed" in plain.stdout
    more = _worker(sound_runner, "--level", "durable", "--json")
    assert more.returncode == 1
    told = json.loads(more.stdout)
    assert (told["level"], told["asked"]) == ("observed", "durable")


def _level(fault: str) -> Level:
    [check] = [check for check in CHECKS if check.name == fault.partition(":")[0]]
    return check.level


def _tried(fault: str) -> list[Check]:
    """Those of its level that are quick; of the slow ones only its own."""
    level = _level(fault)
    return [check for check in CHECKS if check.level is level and (not check.needs_slow or check.name == fault)]


def test_a_sound_runner_reaches_the_top(model: Any, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(model(token=RUN_TOKEN).app()) as url:
            report = await examine(url, Target(slow=SLOW), TIMING, RUNNER_TOKEN)
        assert [finding.line() for finding in report.findings if finding.verdict is not Verdict.PASSED] == []
        assert len(report.findings) == len(CHECKS)
        assert report.level is Level.BATCHED

    asyncio.run(scenario())


def test_of_a_runner_without_a_token_none_is_asked_for(model: Any, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(model().app()) as url:
            report = await examine(url, Target(slow=SLOW), TIMING)
        assert [finding.check.name for finding in report.findings if finding.check.needs_token] == []
        assert report.level is Level.BATCHED

    asyncio.run(scenario())


def test_runner_that_asks_for_a_token_reaches_nothing_without_it(model: Any, serve: Any) -> None:
    async def scenario() -> Report:
        async with serve(model(token=RUN_TOKEN).app()) as url:
            return await examine(url, Target(), TIMING)

    report = asyncio.run(scenario())
    assert report.level is Level.NONE
    assert "it answered 401" in report.findings[0].line()


def test_token_comes_from_the_option_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNNER_TOKEN_FILE", raising=False)
    assert (read_token(RUNNER_TOKEN), read_token("")) == (RUNNER_TOKEN, "")
    (tmp_path / "token").write_text(f"{RUNNER_TOKEN}\n")
    monkeypatch.setenv("RUNNER_TOKEN_FILE", str(tmp_path / "token"))
    assert read_token("") == RUNNER_TOKEN
    with pytest.raises(BadRequest, match="no runner's token"):
        read_token(RUN_TOKEN)
    monkeypatch.setenv("RUNNER_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(BadRequest, match="cannot be read"):
        read_token("")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_check_and_no_other(fault: str, model: Any, serve: Any) -> None:
    async def scenario() -> list[Finding]:
        timing = TIMING if fault != "too_large: silent" else Timing(answer=2)
        async with serve(model(fault, RUN_TOKEN).app()) as url, Client(url, timing, RUN_TOKEN) as client:
            client.target = TARGET
            return [await try_check(check, client) for check in _tried(fault)]

    findings = asyncio.run(scenario())
    failed = {finding.check.name: finding for finding in findings if finding.verdict is Verdict.FAILED}
    assert set(failed) == FAULTS[fault], [finding.line() for finding in failed.values()]
    assert all(finding.seen for finding in failed.values())


def test_levels_above_the_first_that_fails_are_not_tried(model: Any, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(model("live").app()) as url:
            report = await examine(url, Target(slow=SLOW), TIMING)
        assert report.level is Level.PLAIN
        assert {finding.check.level for finding in report.findings} == {Level.PLAIN, Level.OBSERVED}

    asyncio.run(scenario())


def test_checks_that_need_a_slow_payload_are_not_passed_without_one(model: Any, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(model().app()) as url:
            report = await examine(url, Target(), TIMING)
        not_tried = [finding for finding in report.findings if finding.verdict is Verdict.NOT_TRIED]
        assert {finding.check.name for finding in not_tried} == {
            check.name for check in CHECKS if check.needs_slow and check.level is Level.DURABLE
        }
        assert report.level is Level.OBSERVED
        assert "--slow" in not_tried[0].line()

    asyncio.run(scenario())


def test_a_slow_payload_that_is_quick_is_told(model: Any, serve: Any) -> None:
    async def scenario() -> list[Finding]:
        async with serve(model().app()) as url, Client(url, TIMING) as client:
            client.target = Target("nap", TARGET.payload, NOT_GIVEN, {"seconds": 0})
            return [await try_check(check, client) for check in CHECKS if check.name in ("cancel", "invalid_payload")]

    every, cancel = asyncio.run(scenario())
    assert (every.verdict, every.seen) == (Verdict.PASSED, "its schema takes every payload")
    assert cancel.verdict is Verdict.FAILED
    assert "slow payload" in cancel.seen


def _report(level: Level, verdict: Verdict = Verdict.PASSED, name: str = "") -> Report:
    """All checks up to a level; the one of this name has the verdict."""
    findings = [
        Finding(check, verdict if check.name == name else Verdict.PASSED, "it answered 500")
        for check in CHECKS
        if check.level <= level
    ]
    return Report("http://there", "upper", findings)


def test_a_level_is_reached_with_all_of_its_checks() -> None:
    for level in LEVELS:
        assert _report(level).level is level


def test_a_failed_check_costs_its_level_and_all_above() -> None:
    assert _report(Level.BATCHED, Verdict.FAILED, "boot").level is Level.PLAIN
    assert _report(Level.BATCHED, Verdict.FAILED, "run").level is Level.NONE


def test_a_check_that_was_not_tried_is_not_passed() -> None:
    assert _report(Level.BATCHED, Verdict.NOT_TRIED, "cancel").level is Level.OBSERVED


def test_a_failure_says_what_the_contract_wants_and_what_was_seen() -> None:
    text = _report(Level.PLAIN, Verdict.FAILED, "unknown_algorithm").text()
    assert (
        "FAIL  unknown_algorithm  POST /run/ with a name that it does not offer is answered 404; it answered 500"
        in text
    )
    assert text.endswith("level 0 of 4, none: nothing that a controller could use")


def test_programs_get_the_same() -> None:
    told = _report(Level.OBSERVED, Verdict.FAILED, "live").as_json()
    assert (told["level"], told["level_number"], told["algorithm"]) == ("plain", 1, "upper")
    [live] = [check for check in told["checks"] if check["name"] == "live"]
    assert live == {
        "name": "live",
        "level": "observed",
        "verdict": "failed",
        "wants": "GET /healthz/live is answered 200",
        "seen": "it answered 500",
    }


def test_checks_have_names_of_their_own() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)


def test_what_a_runner_says_cannot_command_the_terminal() -> None:
    finding = Finding(CHECKS[0], Verdict.FAILED, "it answered \x1b[2J\r\nlevel 4, “é”")
    assert finding.line().endswith(r"it answered \x1b[2J\r\nlevel 4, “é”")
