"""What a person and a program see of a running environment."""

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from producer.gateway.algorithm_views import AlgorithmStatus, PauseInfo, RunnerStatus, Status, TaskCounts
from runnerlib.contract import RunnerLevel
from worker.state_file import EnvironmentState, ProcessState, RunnerState
from worker.status import StatusReport, build_report, duration, render, runner_lines

READY, STARTING, LOST = (f"http://127.0.0.1:{port}" for port in (8101, 8102, 8103))
STATE = EnvironmentState(
    gateway="http://127.0.0.1:8000",
    discovery="http://127.0.0.1:8010",
    runners={
        "text": RunnerState(
            processes=[ProcessState(url=READY, pid=11, since=1.0), ProcessState(url=STARTING, pid=12)],
            problem="its newest change is not taken",
        ),
        "lost": RunnerState(processes=[ProcessState(url=LOST, pid=13, since=1.0)]),
        "old": RunnerState(processes=[ProcessState(url="http://127.0.0.1:8104", pid=14, since=1.0, draining=True)]),
        "wrong": RunnerState(problem="requirements.txt could not be installed"),
    },
)


def _runner(name: str, host: str, *algorithms: str) -> RunnerStatus:
    return RunnerStatus(id=name, name=name, host=host, docs=None, level=RunnerLevel.FULL, algorithms=list(algorithms))


def _status(*algorithms: AlgorithmStatus) -> Status:
    runners = [_runner("text", READY, "upper"), _runner("guest", "http://10.0.0.9:8100", "ocr")]
    return Status(runners=runners, algorithms=list(algorithms), tasks=TaskCounts(waiting=4), complete=True)


def _algorithm(name: str, waiting: int, *, runners: int = 0, known: bool = True) -> AlgorithmStatus:
    waits = known and not runners and waiting > 0
    return AlgorithmStatus(name=name, runners=runners, tasks=TaskCounts(waiting=waiting), waiting_for_runner=waits)


def _text(found: StatusReport) -> str:
    stream = io.StringIO()
    Console(file=stream, width=180).print(render(found))
    return stream.getvalue()


def test_paused_algorithm_is_named_with_who_did_it_and_how_it_goes_on() -> None:
    upper, nap = _algorithm("upper", 2, runners=1), _algorithm("nap", 0, runners=1)
    since = datetime.now(UTC) - timedelta(minutes=5)
    upper.paused, nap.paused = PauseInfo(by="on-call", since=since), PauseInfo(by="", since=since)
    text = _text(build_report(STATE, _status(upper, nap), 0, False))
    assert "upper: paused by on-call for 5 min; its tasks wait until: producer resume upper" in text
    assert "nap: paused for 5 min; its tasks wait until: producer resume nap" in text


def test_every_process_is_listed_with_its_state() -> None:
    lines = runner_lines(STATE, _status().runners)
    assert [(line.name, line.state, line.host) for line in lines] == [
        ("text", "ready", READY),
        ("text", "starting", STARTING),
        ("lost", "not registered", LOST),
        ("old", "draining", "http://127.0.0.1:8104"),
        ("wrong", "not running", ""),
        ("guest", "elsewhere", "http://10.0.0.9:8100"),
    ]
    assert lines[0].algorithms == ["upper"]
    assert lines[0].pid == 11


def test_a_runner_that_offers_a_part_of_what_it_has_is_partly_ready() -> None:
    lines = runner_lines(STATE, [_runner("text", STARTING, "upper")])
    assert [line.state for line in lines[:2]] == ["not registered", "partly ready"]
    assert lines[1].algorithms == ["upper"]


def test_why_tasks_wait_and_runners_do_not_run_is_said_plainly() -> None:
    status = _status(
        _algorithm("upper", 2, runners=1),
        _algorithm("nap", 3),
        _algorithm("one", 1),
        _algorithm("misspelt", 1, known=False),
    )
    text = _text(build_report(STATE, status, 0, False))
    assert "nap: 3 wait: no runner offers it now" in text
    assert "one: 1 waits: no runner offers it now" in text
    assert "misspelt: 1 waits: no runner ever offered it" in text
    assert "upper: " not in text
    assert "text: its newest change is not taken" in text
    assert "wrong: requirements.txt could not be installed" in text
    assert "dead letters" not in text


def test_version_on_its_way_is_shown_instead_of_the_old_refusal() -> None:
    runners = {
        "text": RunnerState(processes=[ProcessState(url=READY, pid=11, since=1.0)], coming="checking"),
        "large": RunnerState(coming="installing"),
    }
    found = build_report(STATE.model_copy(update={"runners": runners}), _status(), 0, False)
    assert [line.state for line in found.runners[:2]] == ["ready", "installing"]
    assert "text: its newest version is being checked, what ran before goes on" in _text(found)
    assert "large: " not in _text(found)


def test_what_others_registered_is_neither_markup_nor_obeyed_by_a_terminal() -> None:
    strange = _runner("guest[/nonsense]", "http://10.0.0.9:8100\x1b[31m", "ocr\x1b]0;title\x07")
    status = _status(_algorithm("[/red]", 1)).model_copy(update={"runners": [strange]})
    text = _text(build_report(STATE, status, 0, False))
    assert "guest[/nonsense]" in text
    assert "[/red]: 1 waits" in text
    assert "\x1b]" not in text
    assert "8100\x1b" not in text


def test_status_is_readable_at_80_columns() -> None:
    names = ["upper", "lower", "language_detection", "sentiment", "count_words_in_a_text"]
    status = _status(*[_algorithm(name, 2, runners=1) for name in names])
    status = status.model_copy(update={"runners": [_runner("text", READY, *names)]})
    stream = io.StringIO()
    Console(file=stream, width=80).print(render(build_report(STATE, status, 0, False)))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for whole in ("waiting  running", "succeeded  failed  cancelled", "not registered", "127.0.0.1:8101"):
        assert any(whole in line for line in lines), whole


def test_open_dead_letters_are_counted_as_far_as_they_were() -> None:
    assert "3 open dead letters; look at them with: producer dead list" in _text(
        build_report(STATE, _status(), 3, False)
    )
    assert "600+ open dead letters" in _text(build_report(STATE, _status(), 600, True))


def test_what_may_be_missing_is_said() -> None:
    status = _status().model_copy(update={"complete": False})
    assert "runners may be missing here" in _text(build_report(STATE, status, 0, False))


def test_durations_are_as_exact_as_anybody_wants_to_know() -> None:
    assert [duration(s) for s in (-1, 5, 59, 125, 7200, 100_000, 300_000)] == [
        "0 s",
        "5 s",
        "59 s",
        "2 min",
        "2 h",
        "28 h",
        "3 days",
    ]


def test_what_belongs_to_another_runner_is_said_once_and_not_among_its_algorithms() -> None:
    clashing = _runner("lost", LOST, "ocr", "upper").model_copy(update={"clashes": {"upper": "text"}})
    guest = _runner("guest", "http://10.0.0.9:8100", "upper").model_copy(update={"clashes": {"upper": "text"}})
    lines = {line.name: line for line in runner_lines(STATE, [clashing, guest])}
    assert lines["lost"].algorithms == ["ocr"]
    for name in ("lost", "guest"):
        assert "'upper' belongs to runner 'text'" in lines[name].problem
        assert f"worker take-over upper {name}" in lines[name].problem
    told = STATE.model_copy(
        update={
            "runners": {
                "lost": RunnerState(
                    processes=STATE.runners["lost"].processes, problem=f"upper is not ready: {lines['lost'].problem}"
                )
            }
        }
    )
    (again, _) = runner_lines(told, [clashing, guest])
    assert again.problem.count("belongs to") == 1
