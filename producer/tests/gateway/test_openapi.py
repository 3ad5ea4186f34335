"""The OpenAPI document: valid, with every algorithm's own fields, and fresh when runners come and go."""

import asyncio
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from producer.gateway import openapi
from producer.gateway.openapi import Document
from runnerlib.contract import AlgorithmView, Catalogue, Example
from runnerlib.contract.envelope import FIELDS

ITEM = {"$defs": {"Item": {"type": "string"}}, "properties": {"item": {"$ref": "#/$defs/Item"}}, "required": ["item"]}
OTHER = {"$defs": {"Item": {"type": "integer"}}, "properties": {"item": {"$ref": "#/$defs/Item"}}, "required": ["item"]}


def document_of(gateway: Any) -> dict[str, Any]:
    """As a client gets it; checked as a whole."""
    answer = gateway.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    document: dict[str, Any] = answer.json()
    OPENAPI_31_VALIDATOR.validate(document)
    for reference in references(document["paths"]) + references(document["components"]["schemas"]):
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    return document


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for one in node for found in references(one)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for one in node.values() for found in references(one)]


def payload_validator(document: dict[str, Any], algorithm: str) -> Draft202012Validator:
    body = document["paths"][f"/algorithms/{algorithm}/run"]["post"]["requestBody"]
    return Draft202012Validator({**body["content"]["application/json"]["schema"], "components": document["components"]})


def change(gateway: Any, name: str, **description: Any) -> AlgorithmView:
    """Says more of one algorithm."""
    catalogue: Catalogue = gateway.watch.catalogue
    view = catalogue.algorithms[name]
    told = view.model_copy(update={"description": view.description.model_copy(update=description)})
    algorithms = {**catalogue.algorithms, name: told}
    gateway.watch.catalogue = catalogue.model_copy(update={"algorithms": algorithms, "index": catalogue.index + 1})
    return told


def test_every_algorithm_has_calls_with_its_own_fields(gateway: Any) -> None:
    gateway.offer(one=ITEM, two=OTHER)
    document = document_of(gateway)
    for name, good, bad in (("one", "x", 1), ("two", 1, "x")):
        assert payload_validator(document, name).is_valid({"item": good})
        assert not payload_validator(document, name).is_valid({"item": bad})
        assert not payload_validator(document, name).is_valid({})
    assert {"/algorithms/one/tasks", "/algorithms/two/tasks"} <= document["paths"].keys()
    assert [tag["name"] for tag in document["tags"]][:2] == ["algorithm one", "algorithm two"]
    run = document["paths"]["/algorithms/one/run"]["post"]
    assert (run["operationId"], document["tags"][0]["description"]) == ("run_one", "Does one.")


def test_the_fields_of_a_message_are_those_of_the_contract_and_parameters_where_the_payload_is_the_body(
    gateway: Any,
) -> None:
    paths = document_of(gateway)["paths"]
    message = paths["/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert message["properties"].keys() == set(FIELDS)
    for call in ("run", "tasks"):
        parameters = paths[f"/algorithms/upper/{call}"]["post"]["parameters"]
        found = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
        assert found.keys() == set(FIELDS) - {"algorithm", "payload", "id"}
        assert found["delay_seconds"] == {"type": "number", "minimum": 0, "maximum": 604_800}
        assert found["group"] == {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"}


def test_document_changes_as_runners_come_and_go(gateway: Any) -> None:
    assert "/algorithms/upper/run" in document_of(gateway)["paths"]
    gateway.offer(lower=ITEM)
    paths = document_of(gateway)["paths"]
    assert "/algorithms/lower/run" in paths and "/algorithms/upper/run" not in paths
    catalogue = gateway.watch.catalogue
    away = catalogue.algorithms["lower"].model_copy(update={"runners": []})
    update = {"algorithms": {"lower": away}, "index": catalogue.index + 1}
    gateway.watch.catalogue = catalogue.model_copy(update=update)
    about = document_of(gateway)["paths"]["/algorithms/lower/run"]["post"]["description"]
    assert "No runner offers it now" in about
    gateway.watch.catalogue = None
    assert not any(path.endswith("/run") for path in document_of(gateway)["paths"])


BAD_SCHEMAS: list[dict[str, Any]] = [
    {"$ref": "https://example.com/steal.json"},
    {"$ref": "#"},
    {"type": "banana"},
    {"properties": {"a": {"$ref": "#/$defs/Missing"}}},
    {"description": "x" * 200_000},
]


def test_schema_that_could_break_the_document_is_left_out_and_said_so(gateway: Any) -> None:
    names = {f"bad_{place}": schema for place, schema in enumerate(BAD_SCHEMAS)}
    gateway.offer(good=ITEM, **names)
    document = document_of(gateway)
    assert not any("example.com" in reference for reference in references(document))
    for name in names:
        run = document["paths"][f"/algorithms/{name}/run"]["post"]
        assert run["requestBody"]["content"]["application/json"]["schema"] == {}
        assert "The schema of its payload is not shown: it " in run["description"]
    assert payload_validator(document, "good").is_valid({"item": "x"})


def test_texts_and_examples_of_a_runner_cannot_break_the_document(gateway: Any) -> None:
    gateway.offer(odd=ITEM)
    example = Example(payload={"$ref": "https://example.com/steal.json"})
    change(gateway, "odd", summary="\ud800" * 1000, description="y" * 50_000, example=example)
    content = document_of(gateway)["paths"]["/algorithms/odd/run"]["post"]["requestBody"]["content"]
    assert "example" not in content["application/json"]
    change(gateway, "odd", example=Example(payload={"item": "pear"}))
    content = document_of(gateway)["paths"]["/algorithms/odd/run"]["post"]["requestBody"]["content"]
    assert content["application/json"]["example"] == {"item": "pear"}


def test_result_has_the_shape_that_the_document_tells(gateway: Any) -> None:
    gateway.offer(upper=ITEM)
    change(gateway, "upper", output_schema={"type": "string", "maxLength": 3})
    document = document_of(gateway)
    answers = document["paths"]["/algorithms/upper/run"]["post"]["responses"]
    schema = answers["200"]["content"]["application/json"]["schema"]
    told = Draft202012Validator({**schema, "components": document["components"]})
    gateway.post("upper", {"item": "a"}, id="one")
    assert told.is_valid(gateway.get("/tasks/one").json())
    gateway.succeed("upper", b'"abc"')
    task = gateway.get("/tasks/one").json()
    assert told.is_valid(task) and not told.is_valid({**task, "result": "abcd"})


def test_algorithm_that_tells_no_fields_takes_anything(gateway: Any) -> None:
    gateway.offer(anything=None)
    run = document_of(gateway)["paths"]["/algorithms/anything/run"]["post"]
    assert "does not tell its fields" in run["description"]


def test_document_is_written_once_for_a_catalogue_and_a_schema_is_placed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[str] = []
    written: list[int] = []
    place = openapi.place

    def counting(schema: dict[str, Any], owner: str) -> dict[str, Any]:
        placed.append(owner)
        return place(schema, owner)

    def static() -> dict[str, Any]:
        written.append(1)
        return {"paths": {}, "components": {"schemas": {}}}

    monkeypatch.setattr(openapi, "place", counting)

    async def scenario() -> None:
        known = View(catalogue(1, one=ITEM))
        document = Document(static, known)
        first = await asyncio.gather(*(document.current() for _ in range(5)))
        assert len(written) == 1 and len(set(first)) == 1
        known.catalogue = catalogue(2, one=ITEM, two=OTHER)
        second = await document.current()
        assert await document.current() is second
        assert (placed, len(written)) == (["one.payload", "two.payload"], 2)

    asyncio.run(scenario())


class View:
    is_sure = True

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue: Catalogue | None = catalogue


def catalogue(index: int, **schemas: dict[str, Any]) -> Catalogue:
    algorithms = {
        name: {"description": {"name": name, "input_schema": schema}, "schema_digest": name, "runners": ["r"]}
        for name, schema in schemas.items()
    }
    known = {"epoch": "e", "index": index, "uptime_seconds": 9, "lease_seconds": 3, "runners": {}}
    return Catalogue.model_validate({**known, "algorithms": algorithms})
