"""The one list of codes: complete, and in agreement with what other packages say."""

import re
from pathlib import Path

from producer import gateway
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.request_parsing import problem
from runnerlib.contract import FailureCode


def test_every_code_is_told_with_its_status_and_a_sentence() -> None:
    for code in ProblemCode:
        assert 400 <= code.status < 600
        assert code.meaning.endswith(".")
        assert problem(code, "x").status_code == code.status


def test_code_of_a_refusal_is_that_of_the_failure() -> None:
    for name in ("MALFORMED", "UNKNOWN_ALGORITHM", "ID_CONFLICT", "TOO_LARGE", "INVALID_PAYLOAD"):
        assert ProblemCode[name].value == FailureCode[name].value


def test_gateway_writes_no_code_that_is_not_in_the_list() -> None:
    sources = list(Path(gateway.__file__).parent.glob("*.py"))
    written = {
        code
        for source in sources
        for code in re.findall(
            r'problem_response\(\s*\d+,\s*"(\w+)"|ProblemError\(\s*\d+,\s*"(\w+)"', source.read_text()
        )
        for code in code
        if code
    }
    assert len(sources) > 10
    assert written <= {code.value for code in ProblemCode}
