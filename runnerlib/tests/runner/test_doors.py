"""What the doors refuse, and what /docs shows."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

ADAPTER = '''
"""Two examples."""
from dataclasses import dataclass

OPTIONS = {"paint": {"process": "one"}, "upper": {"process": "one"}}


@dataclass
class Colour:
    red: int
    green: int = 0


def run_paint(colour: Colour, layers: int = 2) -> Colour:
    """Paints a wall.

    Args:
        colour: what to paint it with
        layers: how often

    >>> run_paint(Colour(red=1))
    Colour(red=1, green=0)
    """
    assert isinstance(colour, Colour)
    return colour


def run_upper(text: str) -> str:
    """Makes it loud.

    >>> run_upper("abc")
    'ABC'
    """
    return text.upper()
'''


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER)


def post(runner: Any, path: str, body: bytes, **headers: str) -> requests.Response:
    return requests.post(runner.url + path, data=body, headers=headers, timeout=10)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"text": 1}', 422, "invalid_payload"),
        (b"{}", 422, "invalid_payload"),
        (b'{"text": "a", "more": 1}', 422, "invalid_payload"),
        (b"[]", 422, "invalid_payload"),
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b'{"text": "a", "text": "b"}', 400, "malformed"),
        (b'{"text": NaN}', 400, "malformed"),
        (b'{"text": "\xff"}', 400, "malformed"),
        (b'{"text": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "malformed"),
        (b'"' + b"a" * (17 * 1024 * 1024) + b'"', 413, "too_large"),
    ],
    ids=["type", "missing", "unknown", "array", "empty", "cut", "twice", "nan", "utf8", "deep", "large"],
)
def test_a_bad_body_is_refused_in_words(runner: Any, body: bytes, status: int, code: str) -> None:
    answer = post(runner, "/run/upper", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_an_invalid_payload_names_its_fields(runner: Any) -> None:
    problem = runner.run("paint", {"colour": {"red": "1"}, "layer": 2}).json()
    assert [error["loc"] for error in problem["errors"]] == [["colour", "red"], ["layer"]]
    assert "colour.red: " in problem["detail"]


def test_an_unknown_algorithm_is_told_near_names(runner: Any, item: Any) -> None:
    for answer in (runner.run("uper", {"text": "a"}), runner.post_batch("uper", [item("a", {})])):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_algorithm")
        assert "did you mean upper?" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [{"Task-Id": "a b"}, {"Task-Attempt": "0"}, {"Task-Attempt": "x"}, {"Task-Deadline": "soon"}],
)
def test_bad_headers_are_refused(runner: Any, headers: dict[str, str]) -> None:
    answer = post(runner, "/run/upper", b'{"text": "a"}', **headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


@pytest.mark.parametrize(
    "body",
    [b"{", b"{}", b"[1]", b'[{"id": "a"}]', b'[{"id": "a b", "attempt": 1}]', b'[{"id": "a", "attempt": true}]'],
)
def test_a_batch_that_is_no_batch_is_refused_wholly(runner: Any, body: bytes) -> None:
    answer = post(runner, "/batch/upper", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_a_batch_of_several_that_is_too_large_is_refused(runner: Any, item: Any) -> None:
    large = "a" * (3 * 1024 * 1024)
    answer = runner.post_batch("upper", [item("large1", {"text": large}), item("large2", {"text": large})])
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_one_alone_may_be_as_large_as_any_message(runner: Any, item: Any) -> None:
    [entry] = runner.batch("upper", [item("alone", {"text": "a" * (16 * 1024 * 1024 - 100)})])
    assert entry["error"]["code"] == "bad_result", "its result is too large, its payload was not"


def test_a_bad_payload_in_a_batch_costs_its_neighbours_nothing(runner: Any, item: Any) -> None:
    items = [item("b1", {"text": "a"}), item("b2", {"text": 1}), item("b3", {"text": "c"})]
    entries = runner.batch("upper", items)
    assert [entry.get("result") for entry in entries] == ["A", None, "C"]
    assert entries[1]["error"]["code"] == "invalid_payload"
    assert "text: " in entries[1]["error"]["message"]


def test_an_empty_batch_is_answered(runner: Any) -> None:
    assert runner.batch("upper", []) == []


def test_values_arrive_as_what_they_are_and_come_back_as_they_were(runner: Any, item: Any) -> None:
    text = 'Ж "quoted" \u2028 \x00 😀'
    assert runner.run("paint", {"colour": {"red": 2**53 + 1}}).json() == {"result": {"red": 2**53 + 1, "green": 0}}
    assert runner.run("upper", {"text": text}).json() == {"result": text.upper()}
    assert runner.batch("upper", [item("text", {"text": text})])[0]["result"] == text.upper()


def test_docs_show_each_algorithm_with_its_own_fields(runner: Any) -> None:
    document = runner.get("/openapi.json").json()
    paint = document["paths"]["/run/paint"]["post"]
    assert paint["summary"] == "Paints a wall."
    content = paint["requestBody"]["content"]["application/json"]
    properties = content["schema"]["properties"]
    assert properties["layers"] == {"default": 2, "description": "how often", "title": "Layers", "type": "integer"}
    assert properties["colour"]["description"] == "what to paint it with"
    reference = properties["colour"]["$ref"].removeprefix("#/components/schemas/")
    assert set(document["components"]["schemas"][reference]["properties"]) == {"red", "green"}
    result = paint["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["result"]
    assert set(result["properties"]) == {"red", "green"}
    upper = document["paths"]["/run/upper"]["post"]["requestBody"]["content"]["application/json"]
    assert upper["example"] == {"text": "abc"}
    assert runner.get("/docs").status_code == 200


def test_docs_tell_what_headers_and_paths_may_hold(runner: Any) -> None:
    paths = runner.get("/openapi.json").json()["paths"]
    headers = {each["name"]: each["schema"] for each in paths["/run/upper"]["post"]["parameters"]}
    assert headers["Task-Attempt"] == {"type": "integer", "minimum": 1, "exclusiveMaximum": 2**31}
    assert headers["Task-Id"]["pattern"] == "^[A-Za-z0-9._:-]{1,128}$"
    [algorithm] = paths["/batch/{algorithm}"]["post"]["parameters"]
    assert algorithm["schema"]["enum"] == ["paint", "upper"]


def test_every_reference_of_the_document_leads_somewhere(runner: Any) -> None:
    document = runner.get("/openapi.json").json()

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(one) for one in node.values()))
        return set().union(*(references(one) for one in node)) if isinstance(node, list) else set()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_schemas_tell_what_is_registered(runner: Any) -> None:
    described = {one["name"]: one for one in runner.get("/schemas").json()}
    assert set(described) == {"paint", "upper"}
    assert described["upper"]["example"] == {"payload": {"text": "abc"}, "result": "ABC"}
    assert described["upper"]["limits"]["timeout_seconds"] == 300


@pytest.mark.parametrize("path", ["/run/upper", "/batch/upper"])
@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"",'])
def test_millions_of_values_are_refused_before_they_are_made(runner: Any, path: str, unit: bytes) -> None:
    answer = post(runner, path, b"[" + unit * 3_100_000 + unit[:-1] + b"]")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert "more than 3000000 values" in answer.json()["detail"]


def test_a_form_of_another_site_runs_nothing(runner: Any) -> None:
    for told in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "rebound.example"},
    ):
        answer = post(runner, "/run/upper", b'{"text": "a"}', **told)
        assert answer.status_code in (403, 415, 421), told
    assert post(runner, "/run/upper", b'{"text": "a"}').json() == {"result": "A"}
