"""Sessions of browsers: opened with a token, ended with it, and of use to nobody else."""

from collections.abc import Callable
from typing import Any

import pytest
import requests
from token_senders import ADMIN_TOKEN, WAIT_SECONDS, Sender

from producer.gateway.callers import ADMIN, without_admin
from producer.gateway.sessions import COOKIE, FAILURE_SECONDS, MOST_FAILURES, Attempts
from producer.gateway.verifier import TokenVerifier
from taskqueue.tokens import Scope

MakeSender = Callable[..., Sender]


class Browser:
    """Keeps cookies, and sends no token but the one that a person types."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=WAIT_SECONDS, **more)

    def log_in(self, token: str) -> requests.Response:
        return self.ask("POST", "/session", json={"token": token})

    @property
    def cookie(self) -> str:
        return str(self.session.cookies[COOKIE])


@pytest.fixture
def browser(guarded: Any) -> Browser:
    return Browser(guarded.url)


def test_session_allows_what_its_token_allows(browser: Browser, make_sender: MakeSender) -> None:
    reader = make_sender(Scope.READ)
    assert browser.ask("GET", "/tasks").status_code == 401
    opened = browser.log_in(reader.token)
    assert opened.status_code == 201
    view = opened.json()
    assert (view["key_id"], view["scopes"], view["algorithms"]) == (reader.key_id, ["read"], [])
    assert opened.headers["Cache-Control"] == "no-store"
    attributes = {part.strip().lower() for part in opened.headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= attributes
    assert reader.token not in opened.headers["Set-Cookie"] + opened.text
    assert browser.ask("GET", "/tasks").status_code == 200
    assert browser.ask("GET", "/session").json()["key_id"] == reader.key_id
    refused = browser.ask("POST", "/tasks", json={"algorithm": "upper", "payload": {"text": "a"}})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_session_ends_with_its_token(browser: Browser, admin: Sender, make_sender: MakeSender) -> None:
    reader = make_sender(Scope.READ)
    browser.log_in(reader.token)
    admin.call("DELETE", f"/tokens/{reader.key_id}")
    assert browser.ask("GET", "/tasks").status_code == 401
    expiring = make_sender(Scope.READ, expires_in=-1)
    assert browser.log_in(expiring.token).status_code == 401


def test_session_of_the_admin_token_ends_when_that_is_another(guarded: Any, browser: Browser) -> None:
    browser.log_in(ADMIN_TOKEN)

    def caller_at_gateway_with(admin_token: str) -> Any:
        verifier = TokenVerifier(guarded.store.tokens, admin_token)
        return guarded.run(verifier.session_caller(browser.cookie))

    assert caller_at_gateway_with(ADMIN_TOKEN) == without_admin(ADMIN)
    assert caller_at_gateway_with("another-" * 8) is None
    assert caller_at_gateway_with("") is None


def test_session_makes_and_shows_no_tokens(browser: Browser) -> None:
    browser.log_in(ADMIN_TOKEN)
    made = browser.ask("POST", "/tokens", json={"name": "kept", "scopes": ["admin"]})
    assert (made.status_code, browser.ask("GET", "/tokens").status_code) == (403, 403)
    assert browser.ask("GET", "/audit").status_code == 200


def test_session_that_was_ended_is_of_no_use_any_more(browser: Browser) -> None:
    browser.log_in(ADMIN_TOKEN)
    kept = {COOKIE: browser.cookie}
    assert browser.ask("DELETE", "/session").status_code == 204
    assert COOKIE not in browser.session.cookies
    assert requests.get(browser.url + "/tasks", cookies=kept, timeout=WAIT_SECONDS).status_code == 401
    assert browser.ask("DELETE", "/session").status_code == 204


def test_session_that_somebody_else_has_chosen_is_not_taken(browser: Browser) -> None:
    browser.session.cookies.set(COOKIE, "chosen-by-an-attacker", domain="127.0.0.1", path="/")
    browser.log_in(ADMIN_TOKEN)
    chosen = {COOKIE: "chosen-by-an-attacker"}
    assert requests.get(browser.url + "/tasks", cookies=chosen, timeout=WAIT_SECONDS).status_code == 401
    first = browser.cookie
    browser.log_in(ADMIN_TOKEN)
    assert browser.cookie != first
    again = requests.get(browser.url + "/tasks", cookies={COOKIE: first}, timeout=WAIT_SECONDS)
    assert again.status_code == 401, "the one before is ended"


def test_session_is_over_after_its_time(guarded: Any, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.gateway.sessions.SESSION_SECONDS", -1)
    text = browser.log_in(ADMIN_TOKEN).headers["Set-Cookie"].partition("=")[2].partition(";")[0]
    answer = requests.get(browser.url + "/tasks", cookies={COOKIE: text}, timeout=WAIT_SECONDS)
    assert answer.status_code == 401


def test_pages_of_other_sites_cannot_use_it(browser: Browser) -> None:
    browser.log_in(ADMIN_TOKEN)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        answer = browser.ask("POST", "/dead/discard", json={"ids": []}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "other_site")
        assert browser.ask("POST", "/session", json={"token": ADMIN_TOKEN}, headers=headers).status_code == 403


def test_token_wins_over_a_session(browser: Browser, make_sender: MakeSender) -> None:
    browser.log_in(ADMIN_TOKEN)
    reader = make_sender(Scope.READ)
    headers = {"Authorization": f"Bearer {reader.token}"}
    assert browser.ask("GET", "/session", headers=headers).json()["key_id"] == reader.key_id
    assert browser.ask("GET", "/session", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_opening_one_is_noted_with_who_and_from_where(browser: Browser, admin: Sender) -> None:
    browser.log_in(ADMIN_TOKEN)
    (entry,) = admin.get("/audit?action=session.open").json()["entries"]
    assert (entry["who"], entry["client"], entry["ids"]) == ("admin", "127.0.0.1", ["admin"])
    assert browser.cookie not in admin.get("/audit").text


def test_wrong_tokens_are_answered_ever_later_and_right_ones_elsewhere_at_once(browser: Browser, guarded: Any) -> None:
    answers = [browser.log_in(f"ppw_0123456789ab_{n:043d}") for n in range(MOST_FAILURES + 2)]
    assert [answer.status_code for answer in answers] == [401] * MOST_FAILURES + [429] * 2
    assert answers[-1].json()["code"] == "too_many_attempts"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= FAILURE_SECONDS
    assert browser.log_in(ADMIN_TOKEN).status_code == 201, "who guesses wrong locks nobody else out"


def test_attempts_are_counted_by_network_and_forgotten_in_time() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(MOST_FAILURES):
        assert attempts.wait_seconds("2001:db8::1") == 0
        attempts.failed("2001:db8::1")
    assert attempts.wait_seconds("2001:db8::ffff") == pytest.approx(FAILURE_SECONDS)
    assert attempts.wait_seconds("2001:db8:0:1::1") == attempts.wait_seconds("192.0.2.1") == 0
    attempts.failed("::ffff:192.0.2.9")
    assert attempts.wait_seconds("::ffff:192.0.2.1") == 0
    now[0] += FAILURE_SECONDS
    assert attempts.wait_seconds("2001:db8::1") == 0
    attempts.failed("2001:db8::1")
    assert attempts.wait_seconds("2001:db8::1") == pytest.approx(FAILURE_SECONDS)


def test_where_no_tokens_are_in_use_there_is_nothing_to_open(gateway: Any) -> None:
    browser = Browser(gateway.url)
    assert browser.log_in("anything").json()["code"] == "forbidden"
    assert browser.ask("GET", "/session").json() == {
        "key_id": None,
        "scopes": sorted(scope.value for scope in Scope),
        "algorithms": [],
        "expires_at": None,
    }


@pytest.mark.parametrize("body", [{}, {"token": 1}, {"token": "x", "more": 1}, [], {"token": "x" * 300}])
def test_what_is_no_token_is_refused(browser: Browser, body: Any) -> None:
    answer = browser.ask("POST", "/session", json=body)
    assert answer.status_code == 422
    assert "Set-Cookie" not in answer.headers
