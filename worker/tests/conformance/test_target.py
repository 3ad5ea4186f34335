"""What a runner is tested with, and a stranger's JSON Schemas."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from worker.conformance.client import NOT_GIVEN, Client, Target, Unreachable
from worker.conformance.target import BadRequest, find_target, mismatch, other_than, schema_error

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
UPPER = {"name": "upper", "input_schema": SCHEMA, "example": {"payload": {"text": "a"}}, "limits": {"slots": 3}}
PLAIN = {"name": "lower", "input_schema": {}}


@pytest.fixture
def find(serve: Any) -> Any:
    def find(asked: Target, described: Any = None, status: int = 200) -> Target:
        async def schemas(_: web.Request) -> web.Response:
            return web.json_response(described, status=status)

        async def scenario() -> Target:
            app = web.Application()
            app.router.add_get("/schemas", schemas)
            async with serve(app) as url, Client(url) as client:
                return await find_target(client, asked)

        return asyncio.run(scenario())

    return find


def test_the_first_algorithm_with_an_example_is_taken(find: Any) -> None:
    # More fields than the schema names are allowed by it; a list is not.
    assert find(Target(), [PLAIN, UPPER]) == Target("upper", {"text": "a"}, [{"text": "a"}], NOT_GIVEN, 3)


def test_what_was_asked_for_wins(find: Any) -> None:
    asked = Target("upper", {"text": "b"}, None, {"text": "slow"})
    assert find(asked, [UPPER]) == Target("upper", {"text": "b"}, None, {"text": "slow"}, 3)


def test_a_schema_that_takes_everything_has_no_unfit_payload(find: Any) -> None:
    assert find(Target("lower", payload=1), [PLAIN]).unfit is NOT_GIVEN


@pytest.mark.parametrize("described", [None, {"upper": {}}, [{"nameless": 1}], 7])
def test_a_runner_that_says_nothing_is_tried_by_what_was_asked_for(find: Any, described: Any) -> None:
    assert find(Target("upper", {"text": "a"}), described) == Target("upper", {"text": "a"}, [{"text": "a"}], NOT_GIVEN)
    assert find(Target("upper", 1), None, 404).unfit == [1]


@pytest.mark.parametrize(
    ("asked", "described", "says"),
    [
        (Target(), None, "--algorithm"),
        (Target("upper"), None, "--payload"),
        (Target("lower"), [PLAIN], "--payload"),
        (Target("uper"), [UPPER], "it has upper"),
    ],
)
def test_what_is_missing_is_told(find: Any, asked: Target, described: Any, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        find(asked, described)


def test_nobody_there_is_told(free_port: Any) -> None:
    async def scenario() -> None:
        async with Client(f"http://127.0.0.1:{free_port()}") as client:
            await find_target(client, Target())

    with pytest.raises(Unreachable, match="nobody answers at"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    "payload", [{"text": "a"}, {"text": [], "n": 1}, {}, {"list": []}, "a", 1, 1.5, True, None, [1]], ids=repr
)
def test_another_payload_is_another_one(payload: Any) -> None:
    assert other_than(payload) != payload


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}])
def test_a_schema_is_one(schema: dict[str, Any]) -> None:
    assert schema_error(schema) is None


@pytest.mark.parametrize("schema", [None, [], True, {"type": "nothing"}, {"required": "text"}])
def test_what_is_no_schema_is_told(schema: Any) -> None:
    assert schema_error(schema)


def test_a_misfit_is_told_and_what_fits_is_not() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert mismatch({"n": 1}, schema) is None
    assert mismatch({"n": "a"}, schema) == "'a' is not of type 'integer'"


def test_nothing_is_fetched_and_endless_schemas_end() -> None:
    assert "http://127.0.0.1:9/schema" in str(mismatch(1, {"$ref": "http://127.0.0.1:9/schema"}))
    assert mismatch(1, {"$ref": "#"})


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
        {"properties": {"text": {"pattern": r"^\p{L}+$"}}, "patternProperties": {"(": {}}},
    ],
)
def test_expressions_are_not_looked_at(schema: dict[str, Any]) -> None:
    text = "a" * 40 + "!"
    assert schema_error(schema) is None
    assert mismatch({"text": text, text: 1}, schema) is None


@pytest.mark.timeout(60)
def test_endless_alternatives_end() -> None:
    levels = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(64)}
    schema = {"$ref": "#/$defs/l0", "$defs": {**levels, "l64": {"type": "integer"}}}
    assert "references" in str(mismatch("a", schema))


def test_an_id_that_is_no_url_is_told() -> None:
    assert "URL" in str(mismatch(1, {"$id": "http://[bad", "$ref": "x"}))
