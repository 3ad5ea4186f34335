"""What was found becomes a level, lines and JSON."""

from worker.conformance.examining import CHECKS
from worker.conformance.levels import LEVELS, Level
from worker.conformance.report import Finding, Report, Verdict


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
