"""A stranger's JSON Schemas."""

from typing import Any

import pytest

from worker.conformance.schemas import fault_of, misfit_of


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}])
def test_a_schema_is_one(schema: dict[str, Any]) -> None:
    assert fault_of(schema) is None


@pytest.mark.parametrize("schema", [None, [], True, {"type": "nothing"}, {"required": "text"}])
def test_what_is_no_schema_is_told(schema: Any) -> None:
    assert fault_of(schema)


def test_a_misfit_is_told_and_what_fits_is_not() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert misfit_of({"n": 1}, schema) is None
    assert misfit_of({"n": "a"}, schema) == "'a' is not of type 'integer'"


def test_nothing_is_fetched_and_endless_schemas_end() -> None:
    assert "http://127.0.0.1:9/schema" in str(misfit_of(1, {"$ref": "http://127.0.0.1:9/schema"}))
    assert misfit_of(1, {"$ref": "#"})


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
    assert fault_of(schema) is None
    assert misfit_of({"text": text, text: 1}, schema) is None


@pytest.mark.timeout(60)
def test_endless_alternatives_end() -> None:
    levels = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(64)}
    schema = {"$ref": "#/$defs/l0", "$defs": {**levels, "l64": {"type": "integer"}}}
    assert "references" in str(misfit_of("a", schema))


def test_an_id_that_is_no_url_is_told() -> None:
    assert "URL" in str(misfit_of(1, {"$id": "http://[bad", "$ref": "x"}))
