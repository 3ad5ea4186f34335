import asyncio
import gzip
import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.testclient import TestClient

from runnerlib.contract import PROBLEM_MEDIA_TYPE
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.strict_route import StrictRoute
from runnerlib.service.web import BodyLimit, ProblemError, create_app, new_registry


class Body(BaseModel):
    text: str
    count: int = 1


router = APIRouter(route_class=StrictRoute)


@router.post("/body")
async def take(body: Body) -> Body:
    return body


@router.get("/fails")
async def fails() -> None:
    raise ValueError("hidden detail")


@router.get("/busy")
async def busy() -> None:
    raise ProblemError(429, "busy", "No free slot; ask again.", {"Retry-After": "0.05"})


@pytest.fixture
def health() -> Health:
    return Health("store")


@pytest.fixture
def app(health: Health) -> FastAPI:
    app = create_app("Sample", health=health, description="A sample.")
    app.include_router(router)
    app.add_middleware(BodyLimit, max_bytes=1000)
    return app


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app)


def problem(response: Any) -> dict[str, Any]:
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert body["status"] == response.status_code
    assert body["title"] and body["detail"]
    return body


def test_live_is_always_200_and_ready_says_why_not(client: TestClient, health: Health) -> None:
    assert client.get("/healthz/live").status_code == 200
    waiting = client.get("/healthz/ready")
    assert waiting.status_code == 503
    assert waiting.json() == {"ready": False, "reasons": {"store": "starting"}}
    health.set("store", True)
    assert client.get("/healthz/ready").json() == {"ready": True, "reasons": {}}
    assert client.get("/healthz/ready").status_code == 200


def test_metrics_tell_the_process_and_what_was_registered(health: Health) -> None:
    assert "process_resident_memory_bytes" in TestClient(create_app("x", health=health)).get("/metrics").text
    empty = TestClient(create_app("x", health=health, registry=new_registry()))
    assert empty.get("/metrics").headers["content-type"].startswith("text/plain")


def test_docs_need_no_network(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "://" not in re.sub(r"window\.location\.\w+", "", page)
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(links) == 3
    for link in links:
        assert client.get(f"/{link}").status_code == 200
    assert client.get("/openapi.json").status_code == 200


def test_openapi_tells_our_problems_and_not_the_frameworks(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in str(document)
    assert document["components"]["schemas"]["Problem"]["properties"]["code"]
    answers = document["paths"]["/body"]["post"]["responses"]
    assert PROBLEM_MEDIA_TYPE in answers["default"]["content"]


def test_docs_show_what_the_service_is_for_before_its_health(health: Health) -> None:
    app = create_app("Sample", health=health)
    app.include_router(router, tags=["sample"])
    assert TestClient(app).get("/openapi.json").json()["tags"] == [{"name": "sample"}, {"name": "health"}]


def test_unknown_route_is_a_problem(client: TestClient) -> None:
    assert problem(client.get("/nothing"))["code"] == "not_found"


def test_wrong_method_is_a_problem(client: TestClient) -> None:
    answer = client.delete("/body")
    assert problem(answer)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST"


def test_an_invalid_body_names_the_field_and_does_not_echo_the_input(client: TestClient) -> None:
    answer = client.post("/body", json={"text": ["hunter2"], "count": "x"})
    body = problem(answer)
    assert (answer.status_code, body["code"]) == (422, "invalid_payload")
    assert body["detail"].startswith("text: ")
    assert [entry["loc"] for entry in body["errors"]] == [["body", "text"], ["body", "count"]]
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("text", ['{"text": "a", "text": "b"}', "{", '{"text": NaN}', '{"text": "\\ud800"}'])
def test_a_body_that_is_not_strict_json_is_malformed(client: TestClient, text: str) -> None:
    answer = client.post("/body", content=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code, problem(answer)["code"]) == (400, "malformed")


def test_a_problem_error_keeps_its_code_and_headers(client: TestClient) -> None:
    answer = client.get("/busy")
    assert (answer.status_code, problem(answer)["code"]) == (429, "busy")
    assert answer.headers["retry-after"] == "0.05"


def test_an_unexpected_exception_is_500_without_its_text(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.get("/fails")
    assert (answer.status_code, problem(answer)["code"]) == (500, "internal_error")
    assert "hidden detail" not in answer.text
    assert "hidden detail" in "".join(capsys.readouterr())


def test_a_body_beyond_the_limit_is_refused(client: TestClient) -> None:
    answer = client.post("/body", json={"text": "x" * 2000})
    assert (answer.status_code, problem(answer)["code"]) == (413, "too_large")


def test_a_chunked_body_beyond_the_limit_is_refused_before_it_has_ended(app: FastAPI) -> None:
    async def scenario() -> bytes:
        async with HttpServer(app, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            head = "POST /body HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head.encode() + b"400\r\n" + b"x" * 1024 + b"\r\n")
            answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
            writer.close()
            return answer

    answer = asyncio.run(scenario())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in answer


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_sender_who_sends_on_gets_the_refusal_and_not_a_broken_connection(app: FastAPI, is_chunked: bool) -> None:
    size = 20 * 1024 * 1024
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    head = f"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    body = b"x" * size
    if is_chunked:
        body = f"{size:x}\r\n".encode() + body + b"\r\n0\r\n\r\n"

    async def scenario() -> bytes:
        async with HttpServer(app, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head.encode() + body)
            # The whole is sent before anything is read: a connection that was reset would show here.
            await asyncio.wait_for(writer.drain(), 20)
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return answer

    answer = asyncio.run(scenario())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in answer


def test_a_body_within_the_limit_passes(client: TestClient) -> None:
    assert client.post("/body", json={"text": "abc"}).json() == {"text": "abc", "count": 1}


@pytest.mark.parametrize("path", ["/healthz/live", "/healthz/ready", "/metrics", "/docs", "/openapi.json", "/busy"])
def test_head_is_answered_as_get_without_the_body(client: TestClient, path: str) -> None:
    wanted, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (wanted.status_code, b"")
    told = {name: value for name, value in wanted.headers.items() if name != "content-length" or path != "/metrics"}
    assert told.items() <= head.headers.items()


def test_head_is_told_among_the_methods_that_a_path_knows(client: TestClient) -> None:
    assert client.options("/healthz/live").headers["allow"] == "GET, HEAD"
    refused = client.head("/body")
    assert (refused.status_code, refused.headers["allow"], refused.content) == (405, "POST", b"")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Encoding": "gzip"}, "Content-Encoding 'gzip'"),
        ({"Content-Encoding": "br, gzip"}, "Content-Encoding 'br, gzip'"),
        ({"Transfer-Encoding": "gzip, chunked"}, "Transfer-Encoding 'gzip, chunked'"),
        ({"Content-Type": "application/json; charset=utf-16"}, "charset 'utf-16'"),
        ({"Content-Type": 'application/json;charset="ISO-8859-1"'}, "charset 'ISO-8859-1'"),
        ({"Content-Type": "text/plain;charset=UTF-8"}, "'Content-Type: application/json'"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "'Content-Type: application/json'"),
        ({"Content-Type": "Multipart/Form-Data; boundary=b"}, "'Content-Type: application/json'"),
    ],
)
def test_body_that_is_a_form_or_not_plain_utf_8_is_refused_by_its_headers(
    client: TestClient, headers: dict[str, str], words: str
) -> None:
    body = gzip.compress(b'{"text": "a"}')
    answer = client.post("/body", content=body, headers={"Content-Type": "application/json", **headers})
    assert (answer.status_code, problem(answer)["code"]) == (415, "unsupported_media_type")
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "identity"},
        {"Content-Type": "application/json; charset=UTF-8"},
        {"Content-Type": "application/json; charset"},
        {"TE": "trailers"},
        {"Expect": "100-continue"},
    ],
)
def test_headers_that_change_nothing_of_the_body_are_passed_over(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/body", content=b'{"text": "a"}', headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"text": "a"}'.encode("utf-16"), "UTF-16"),
        ('{"text": "a"}'.encode("utf-16-be"), "UTF-16"),
        ('{"text": "a"}'.encode("utf-32-le"), "UTF-32"),
    ],
)
def test_body_in_another_encoding_is_told_from_bad_json(client: TestClient, body: bytes, words: str) -> None:
    answer = client.post("/body", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, problem(answer)["code"]) == (400, "malformed")
    assert words in answer.json()["detail"]


def test_byte_order_mark_is_no_part_of_a_body(client: TestClient) -> None:
    body = b'\xef\xbb\xbf{"text": "bom"}'
    assert client.post("/body", content=body, headers={"Content-Type": "application/json"}).json()["text"] == "bom"
