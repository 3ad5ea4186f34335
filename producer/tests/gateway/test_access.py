"""Who is let in: every call of the OpenAPI document, with every kind of token."""

from collections.abc import Callable
from typing import Any

import pytest
import requests
from token_senders import ADMIN_TOKEN, METRICS_TOKEN, Sender

from producer.gateway.access import ROUTES
from producer.gateway.verifier import new_token
from taskqueue.tokens import Scope

SUBMIT, READ, READ_ALL, OPERATE, ADMIN = Scope.SUBMIT, Scope.READ, Scope.READ_ALL, Scope.OPERATE, Scope.ADMIN
READING = {READ, READ_ALL, OPERATE, ADMIN}
ANYBODY = {None}
MESSAGE = {"algorithm": "upper", "payload": {"text": "a"}}
NONE_DEAD = {"ids": []}
TOKEN = {"name": "new", "scopes": ["read"]}

#: Every call: who may make it, with which path and body it is tried, and what who may is answered. By hand, not from
#: the gateway's own table.
CALLS: dict[tuple[str, str], tuple[set[Any], str, Any, int]] = {
    ("GET", "/healthz/live"): (ANYBODY, "/healthz/live", None, 200),
    ("GET", "/healthz/ready"): (ANYBODY, "/healthz/ready", None, 200),
    ("GET", "/metrics"): (READING, "/metrics", None, 200),
    ("POST", "/algorithms/upper/run"): ({SUBMIT, ADMIN}, "/algorithms/upper/run?expires_seconds=-1", {}, 422),
    ("POST", "/algorithms/anything/run"): ({SUBMIT, ADMIN}, "/algorithms/anything/run?expires_seconds=-1", {}, 422),
    ("POST", "/algorithms/upper/tasks"): ({SUBMIT, ADMIN}, "/algorithms/upper/tasks", {"text": "a"}, 202),
    ("POST", "/algorithms/anything/tasks"): ({SUBMIT, ADMIN}, "/algorithms/anything/tasks", {}, 202),
    ("POST", "/tasks"): ({SUBMIT, ADMIN}, "/tasks", MESSAGE, 202),
    ("POST", "/tasks/batch"): ({SUBMIT, ADMIN}, "/tasks/batch", [MESSAGE], 202),
    ("GET", "/tasks"): (READING, "/tasks", None, 200),
    ("GET", "/tasks/{task_id}"): (READING, "/tasks/unknown", None, 404),
    ("POST", "/tasks/lookup"): (READING, "/tasks/lookup", {"ids": ["unknown"]}, 200),
    ("DELETE", "/tasks/{task_id}"): ({SUBMIT, OPERATE, ADMIN}, "/tasks/new-{}", None, 200),
    ("GET", "/dead"): (READING, "/dead", None, 200),
    ("GET", "/dead/{dead_id}"): (READING, "/dead/999", None, 404),
    ("POST", "/dead/{dead_id}/replay"): ({OPERATE, ADMIN}, "/dead/999/replay", None, 404),
    ("POST", "/dead/{dead_id}/discard"): ({OPERATE, ADMIN}, "/dead/999/discard", None, 404),
    ("POST", "/dead/replay"): ({OPERATE, ADMIN}, "/dead/replay", NONE_DEAD, 200),
    ("POST", "/dead/discard"): ({OPERATE, ADMIN}, "/dead/discard", NONE_DEAD, 200),
    ("GET", "/algorithms"): ({SUBMIT, *READING}, "/algorithms", None, 200),
    ("GET", "/algorithms/{name}"): ({SUBMIT, *READING}, "/algorithms/upper", None, 200),
    ("POST", "/algorithms/{name}/pause"): ({OPERATE, ADMIN}, "/algorithms/anything/pause", None, 200),
    ("POST", "/algorithms/{name}/resume"): ({OPERATE, ADMIN}, "/algorithms/anything/resume", None, 200),
    ("GET", "/status"): ({SUBMIT, *READING}, "/status", None, 200),
    ("POST", "/session"): (ANYBODY, "/session", {"token": ADMIN_TOKEN}, 201),
    ("DELETE", "/session"): (ANYBODY, "/session", None, 204),
    ("GET", "/session"): (set(Scope), "/session", None, 200),
    ("POST", "/tokens"): ({ADMIN}, "/tokens", TOKEN, 201),
    ("GET", "/tokens"): ({ADMIN}, "/tokens", None, 200),
    ("DELETE", "/tokens/{key_id}"): ({ADMIN}, "/tokens/unknown", None, 404),
    ("GET", "/audit"): ({OPERATE, ADMIN}, "/audit", None, 200),
}


def documented(guarded: Any) -> set[tuple[str, str]]:
    document = requests.get(guarded.url + "/openapi.json", timeout=10).json()
    return {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}


def test_every_documented_call_has_a_rule_and_is_tried_here(guarded: Any) -> None:
    calls = documented(guarded)
    assert {(method, path) for method, path in calls if ROUTES.find(method, path) is None} == set()
    assert calls == CALLS.keys()


def test_route_without_a_rule_does_not_exist_for_anybody(guarded: Any, admin: Sender) -> None:
    async def forgotten() -> str:
        return "secret"

    guarded.app.add_api_route("/forgotten", forgotten)
    assert admin.get("/forgotten").status_code == 404
    assert Sender(guarded.url, None).get("/forgotten").status_code == 404


@pytest.mark.parametrize(("call"), CALLS, ids=" ".join)
def test_call_is_open_to_those_who_may_make_it_and_to_nobody_else(
    guarded: Any, make_sender: Callable[..., Sender], refused_senders: dict[str, Sender], call: tuple[str, str]
) -> None:
    method = call[0]
    allowed, path, body, status = CALLS[call]
    for kind, sender in refused_senders.items():
        answer = sender.call(method, path.format(kind), body)
        expected = status if allowed == ANYBODY else 401
        assert (kind, answer.status_code) == (kind, expected), answer.text
    for scope in Scope:
        answer = make_sender(scope).call(method, path.format(scope.name), body)
        expected = status if allowed == ANYBODY or scope in allowed else 403
        assert (scope, answer.status_code) == (scope, expected), answer.text
        if expected == 403:
            assert answer.json()["code"] == "forbidden"
            assert f"`{RULES_OF[call]}`" in answer.json()["detail"]


#: The scope that a refusal names, the first of those that would do.
RULES_OF = {
    call: next((scope.value for scope in (SUBMIT, READ, OPERATE, ADMIN) if scope in allowed), "")
    for call, (allowed, *_) in CALLS.items()
}


@pytest.fixture
def refused_senders(guarded: Any, admin: Sender, make_sender: Callable[..., Sender]) -> dict[str, Sender]:
    """All who must be refused, and the refusal must tell them no more than that."""
    good, expired, revoked = make_sender(*Scope), make_sender(*Scope, expires_in=-1.0), make_sender(*Scope)
    assert good.token is not None
    assert admin.call("DELETE", f"/tokens/{revoked.key_id}").status_code == 200
    unknown = new_token()[1]
    wrong = good.token[:-1] + ("A" if good.token[-1] != "A" else "B")
    texts = {
        "unknown": unknown,
        "wrong": wrong,
        "malformed": "x",
        "empty": "",
        "long": "ppw_" + "a" * 10_000,
        "metrics-token": METRICS_TOKEN + "x",
        "other-prefix": good.token.replace("ppw_", "ppr_"),
        "key-id-alone": "_".join(good.token.split("_")[:2]),
    }
    senders = {kind: Sender(guarded.url, text) for kind, text in texts.items()}
    return {"none": Sender(guarded.url, None), "expired": expired, "revoked": revoked, **senders}


def test_refusals_are_the_same_whatever_is_wrong_with_the_token(
    refused_senders: dict[str, Sender], make_sender: Callable[..., Sender]
) -> None:
    nobody = refused_senders.pop("none").get("/tasks")
    assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="plugplay"'
    assert "Authorization: Bearer" in nobody.json()["detail"]
    answers = [sender.get("/tasks") for sender in refused_senders.values()]
    assert len({answer.text for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {
        'Bearer realm="plugplay", error="invalid_token"'
    }
    assert answers[0].json()["code"] == "unauthorized"


def test_token_is_taken_from_one_authorization_header_alone(guarded: Any, make_sender: Callable[..., Sender]) -> None:
    text = make_sender(READ).token
    url = guarded.url + "/tasks"
    for good in (f"Bearer {text}", f"bearer {text}", f"BEARER  {text} "):
        assert requests.get(url, headers={"Authorization": good}, timeout=10).status_code == 200
    for bad in (f"Basic {text}", f"{text}", f"Bearer{text}", f"Bearer {text},x", f"Bearer x {text}"):
        assert requests.get(url, headers={"Authorization": bad}, timeout=10).status_code == 401
    for elsewhere in ({"X-Api-Key": text}, {"Cookie": f"token={text}"}, {"Proxy-Authorization": f"Bearer {text}"}):
        assert requests.get(url, headers=elsewhere, timeout=10).status_code == 401


@pytest.mark.parametrize("path", ["/", "/schemas", "/docs", "/openapi.json", "/swagger/swagger-ui.css"])
def test_pages_that_tell_nothing_of_tasks_are_open(guarded: Any, path: str) -> None:
    assert requests.get(guarded.url + path, timeout=10).status_code in (200, 404)
    assert requests.head(guarded.url + path, timeout=10).status_code in (200, 404)


@pytest.mark.parametrize(
    "path",
    ["/tasks/", "//tasks", "/./tasks", "/TASKS", "/tasks/a/b", "/%2ftasks", "/docs/../tasks", "/swagger/../tasks"],
)
def test_no_other_spelling_of_a_path_gets_around_its_rule(guarded: Any, path: str) -> None:
    request = requests.Request("GET", guarded.url).prepare()
    request.url = guarded.url + path
    with requests.Session() as session:
        answer = session.send(request, timeout=10, allow_redirects=False)
    assert answer.status_code in (401, 404)


def test_head_needs_what_get_needs(guarded: Any, make_sender: Callable[..., Sender]) -> None:
    assert requests.head(guarded.url + "/tasks", timeout=10).status_code == 401
    assert make_sender(SUBMIT).call("HEAD", "/tasks").status_code == 403
    assert make_sender(READ).call("HEAD", "/tasks").status_code == 200


def test_other_methods_are_refused_with_those_that_are_known(guarded: Any) -> None:
    answer = requests.put(guarded.url + "/tasks", timeout=10)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST, HEAD")


def test_metrics_token_is_good_for_metrics_alone(guarded: Any) -> None:
    scraper = Sender(guarded.url, METRICS_TOKEN)
    assert scraper.get("/metrics").status_code == 200
    assert [scraper.get(path).status_code for path in ("/tasks", "/status", "/audit")] == [401] * 3


@pytest.mark.parametrize(
    "query",
    ["token={}", "access_token={}", "limit=1&x={}", "{}", "{}=1", "API_KEY=abc", "x=Bearer%20{}", "x=%70pw{rest}"],
)
def test_token_in_a_url_is_refused_and_logged_nowhere(
    guarded: Any, make_sender: Callable[..., Sender], caplog: pytest.LogCaptureFixture, query: str
) -> None:
    caplog.set_level("DEBUG")
    sender = make_sender(*Scope)
    assert sender.token is not None
    for path in ("/tasks", "/healthz/live", "/docs", "/nothing"):
        answer = sender.get(f"{path}?{query.format(sender.token, rest=sender.token[3:])}")
        assert (answer.status_code, answer.json()["code"]) == (400, "token_in_url")
        assert sender.token not in answer.text
        answer = sender.call("DELETE", f"/tasks/{sender.token}")
        assert (answer.status_code, answer.json()["code"]) == (400, "token_in_url")
        assert sender.token not in answer.text
    # the client logs its own URL; uvicorn's access log is off, but pytest puts a handler into it
    ours = [
        each.getMessage() for each in caplog.records if each.name not in ("urllib3.connectionpool", "uvicorn.access")
    ]
    assert ours and not any(sender.token[10:] in message for message in ours)


def test_body_of_who_is_refused_is_not_looked_at(guarded: Any) -> None:
    nobody = Sender(guarded.url, None)
    assert nobody.post("/tasks", {"algorithm": "no such", "payload": 1}).status_code == 401
    large = requests.post(guarded.url + "/tasks", data=b"x" * 200_000, timeout=10)
    assert large.status_code == 401


def test_document_says_what_each_call_needs(guarded: Any) -> None:
    document = requests.get(guarded.url + "/openapi.json", timeout=10).json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["security"] == [{"token": []}]
    for (method, path), (allowed, *_) in CALLS.items():
        operation = document["paths"][path][method.lower()]
        assert operation.get("security", document["security"]) == ([] if allowed == ANYBODY else [{"token": []}])
        if allowed != ANYBODY:
            assert {"401", "403"} <= operation["responses"].keys()
            assert f"Needs {ROUTES.find(method, path).words}" in operation["description"]  # type: ignore[union-attr]


def test_document_says_nothing_of_tokens_where_none_are_in_use(gateway: Any) -> None:
    document = gateway.get("/openapi.json").json()
    assert "security" not in document and "securitySchemes" not in document["components"]


def test_table_has_no_rule_for_what_is_not_there(guarded: Any) -> None:
    unseen = {path for _, path in ROUTES.rules} - {path for _, path in documented(guarded)}
    assert unseen == {
        "/",
        "/docs",
        "/schemas",
        "/openapi.json",
        "/swagger/{file}",
        "/algorithms/{algorithm}/tasks",
        "/algorithms/{algorithm}/run",
    }
