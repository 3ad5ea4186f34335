"""The command line, as an author types it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runnerlib.__main__ import main

ADAPTERS = Path(__file__).parent / "adapters"


@pytest.fixture
def in_folder(monkeypatch):
    """Goes into a sample adapter's folder."""
    monkeypatch.delenv("RUNNER_ADAPTER", raising=False)
    return lambda name: monkeypatch.chdir(ADAPTERS / name)


def test_check_prints_one_line_for_each_algorithm(in_folder, capsys):
    in_folder("plain")
    assert main(["check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "runner_adapter.py: 3 algorithms",
        "  upper(text: str, times: int = 1) -> str  Turn a text into capital letters.",
        "  divide(a: float, b: float) -> float  Divide.",
        "  slowly(steps: int) -> list[int]  Report each step.",
    ]


def test_check_tells_traits_and_missing_docstrings(capsys):
    assert main(["check", str(ADAPTERS / "waiting" / "runner_adapter.py")]) == 0
    assert "  double(n: int) -> int  [batched, async]  Double them." in capsys.readouterr().out
    assert main(["check", str(ADAPTERS / "shapes")]) == 0
    out = capsys.readouterr().out
    assert "limited: int, anything: Any, nothing: None = None" in out
    assert "nested(outer: Outer) -> Outer  (no docstring)" in out


def test_check_loads_nothing_unless_told_to(write, capsys):
    path = write("def load_model():\n    raise ValueError('no file')\ndef run_x(*, model): ...")
    assert main(["check", str(path)]) == 0
    assert main(["check", str(path), "--self-test"]) == 1
    assert capsys.readouterr().err == "load_model() failed: ValueError: no file\n"


def test_check_with_self_test_runs_examples(capsys, write):
    assert main(["check", str(ADAPTERS / "plain"), "--self-test"]) == 0
    told = capsys.readouterr().out.splitlines()[-3:]
    assert told == ["example of upper: passed", "example of divide: skipped", "example of slowly: not there"]
    path = write('def run_x() -> int:\n    """X.\n\n    >>> run_x()\n    2\n    """\n    return 1')
    assert main(["check", str(path), "--self-test"]) == 1
    assert capsys.readouterr().err.startswith("run_x(): its example says 2, but it returned 1;")


def test_check_prints_all_mistakes_and_fails(write, capsys):
    assert main(["check", str(write("def run_x(a): ...\ndef run_y(b): ..."))]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "run_x(): parameter 'a' has no type hint; add one, e.g. a: str",
        "run_y(): parameter 'b' has no type hint; add one, e.g. b: str",
    ]


def test_check_prints_notes(write, capsys):
    path = write('def run_x(text: str):\n    """X.\n\n    Args:\n        txet: A text.\n    """')
    assert main(["check", str(path)]) == 0
    assert "note: run_x(): its docstring describes 'txet', which is no parameter. Did you mean 'text'?" in (
        capsys.readouterr().out
    )


def test_environment_variables_count(write, capsys, monkeypatch):
    monkeypatch.setenv("RUNNER_ADAPTER", str(write("def run_x(a: int): ...")))
    monkeypatch.setenv("OPTION_X_BATCH", "0")
    assert main(["check"]) == 1
    assert capsys.readouterr().err == "OPTION_X_BATCH must be a whole number, 1 or more, not '0'.\n"


@pytest.mark.parametrize(
    ("folder", "algorithm", "payload", "result"),
    [
        ("plain", "upper", '{"text": "äbc"}', "ÄBC"),
        ("plain", "run_upper", '{"text": "a", "times": 2}', "AA"),
        ("plain", "slowly", '{"steps": 2}', [0, 1]),
        ("waiting", "later", '{"text": "a"}', "a later"),
        ("batches", "square", '{"n": 3}', 9),
        ("loads", "size", "{}", 3),
        ("shapes", "default", "{}", {"width": 2.0, "colour": "red"}),
    ],
)
def test_run_prints_the_result_as_json(folder, algorithm, payload, result, in_folder, capsys):
    in_folder(folder)
    assert main(["run", algorithm, payload]) == 0
    assert json.loads(capsys.readouterr().out) == result


REFUSED = {
    "a missing field": ("upper", "{}", ["upper: field 'text': field required"]),
    "a misspelt field": (
        "upper",
        '{"text": "a", "tims": 2}',
        ["upper has no field 'tims'. Did you mean 'times'? There are text, times"],
    ),
    "another type": ("upper", '{"text": 3}', ["upper: field 'text': input should be a valid string, not 3"]),
    "two mistakes": (
        "upper",
        '{"text": 3, "times": "b"}',
        [
            "upper: field 'text': input should be a valid string, not 3",
            "upper: field 'times': input should be a valid integer, not 'b'",
        ],
    ),
    "no object": ("upper", "3", ["upper: the payload: input should be an object"]),
    "no JSON": (
        "upper",
        "{text: 3}",
        [
            "the payload is not JSON: Expecting property name enclosed in double quotes at line 1, column 2; "
            'write it like \'{"text":"abc","times":2}\''
        ],
    ),
    "a key twice": ("upper", '{"text": "a", "text": "b"}', None),
    "an unknown algorithm": (
        "uper",
        "{}",
        ["there is no algorithm 'uper'. Did you mean 'upper'? There are upper, divide, slowly"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_run_says_what_is_wrong_in_sentences(name, in_folder, capsys):
    in_folder("plain")
    algorithm, payload, expected = REFUSED[name]
    assert main(["run", algorithm, payload]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert expected is None or told.err.splitlines() == expected


def test_run_shows_the_authors_error_and_whether_it_would_be_retried(in_folder, capsys):
    in_folder("plain")
    assert main(["run", "divide", '{"a": 1, "b": 0}']) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in run_divide")
    assert (
        lines[-1] == "run_divide() failed (transient: it would be retried): ZeroDivisionError: float division by zero"
    )


@pytest.mark.parametrize(
    ("currency", "told"),
    [
        ("XXX", "a type that reads the payload failed (permanent: it would not be retried): KeyError: 'XXX'"),
        ("away", "a type that reads the payload failed (permanent: it would not be retried): OSError: away"),
        ("gone", "a type that reads the payload failed (permanent: it would not be retried): SystemExit: gone"),
        ("bad", "convert: field 'money': value error, no money, not {'currency': 'bad'}"),
    ],
)
def test_run_tells_what_the_types_of_a_payload_raise(currency, told, write, capsys):
    path = write(
        """
        import dataclasses
        ERRORS = {"away": OSError("away"), "gone": SystemExit("gone"), "bad": ValueError("no money")}
        @dataclasses.dataclass
        class Money:
            currency: str
            def __post_init__(self): raise ERRORS[self.currency]
        def run_convert(money: Money) -> float: ...
        """
    )
    payload = json.dumps({"money": {"currency": currency}})
    assert main(["run", "convert", payload, "--path", str(path)]) == 1
    assert told in capsys.readouterr().err


def test_run_keeps_what_an_author_prints_away_from_the_result(write, capsys):
    path = write("print('imported')\ndef run_x() -> int:\n    print('called')\n    return 1")
    assert main(["run", "x", "{}", "--path", str(path)]) == 0
    told = capsys.readouterr()
    assert told.out == "1\n"
    assert "imported" in told.err
    assert "called" in told.err


def test_run_tells_a_result_that_is_none(write, capsys):
    assert main(["run", "x", "{}", "--path", str(write("def run_x() -> float:\n    return float('nan')"))]) == 1
    assert capsys.readouterr().err.startswith("run_x() returned NaN or an infinity")


def test_schemas_are_what_is_registered(in_folder, capsys):
    in_folder("plain")
    assert main(["schemas"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in described] == ["upper", "divide", "slowly"]
    assert described[0]["limits"]["timeout_seconds"] == 300


def python_m_runnerlib(*arguments, folder, typed=""):
    environment = {name: value for name, value in os.environ.items() if name != "RUNNER_ADAPTER"}
    return subprocess.run(
        [sys.executable, "-m", "runnerlib", *arguments],
        cwd=ADAPTERS / folder,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_shell_has_the_functions_with_provided_names_filled_in():
    done = python_m_runnerlib(
        "shell", folder="waiting", typed="print(run_later('a'), batch_double([1, 2]), run_double(4))\n"
    )
    assert "a later [2, 4] 8" in done.stdout
    assert "run_later(text)  Give back after a moment." in done.stderr
    assert done.returncode == 0


def test_run_reads_its_payload_from_standard_input():
    done = python_m_runnerlib("run", "upper", "-", folder="plain", typed='{"text": "a"}')
    assert (done.stdout, done.returncode) == ('"A"\n', 0)


def test_check_and_run_need_none_of_the_web_parts():
    code = (
        "import sys; from runnerlib.__main__ import main; main(['check']); "
        "print([m for m in ('fastapi', 'uvicorn', 'requests') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ADAPTERS / "plain", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_unknown_command_is_told():
    assert python_m_runnerlib("chekc", folder="plain").returncode == 2


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.search(r"runnerlib \d+\.\d+", capsys.readouterr().out)
