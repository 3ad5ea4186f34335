"""Who may register what, and read it, where the environment has keys."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest

from runner_discovery.__main__ import may_be_remembered
from runner_discovery.admission import known_as
from runner_discovery.app import ROUTES, create_discovery_app
from runner_discovery.host_rule import EVERY_HOST, HostRule
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.name_lookup import NameLookup
from runner_discovery.snapshot_file import SnapshotFile
from runnerlib.contract.identity import RunnerKeys, run_token_of
from runnerlib.service.addresses import Address
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer

Make = Callable[..., dict[str, Any]]
OLD, NEW = "o" * 40, "n" * 40
KEYS = RunnerKeys([NEW, OLD])
METRICS = "m" * 40
TEXT, NLP, SERVICE = KEYS.runner_token("text"), KEYS.runner_token("nlp"), KEYS.service_token()
STRANGERS = {
    "unknown": "ppr_text." + "a" * 43,
    "of another environment": RunnerKeys(["x" * 40]).runner_token("text"),
    "service of another environment": RunnerKeys(["x" * 40]).service_token(),
    "for runs": run_token_of(TEXT),
    "the key itself": NEW,
    "metrics": METRICS,
}


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., None]:
    def run(
        scenario: Callable[[httpx.AsyncClient], Awaitable[None]],
        keys: RunnerKeys | None = KEYS,
        hosts: HostRule = EVERY_HOST,
    ) -> None:
        async def main() -> None:
            file = SnapshotFile(tmp_path / "d.json")
            async with (
                LiveRegistry(file, lease_seconds=30, keeps=partial(may_be_remembered, hosts, keys)) as live,
                HttpServer(create_discovery_app(live, Health(), hosts, keys, METRICS), "127.0.0.1", 0) as server,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client,
            ):
                await scenario(client)

        asyncio.run(main())

    return run


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


OPEN, RUNNER, SERVED = {"nobody", "text", "nlp", "service"}, {"text", "nlp"}, {"service"}
#: Every call: whom it is open to, and with which path, body and answer it is tried. By hand, not from the table.
CALLS: dict[tuple[str, str], tuple[set[str], str, Any, int]] = {
    ("GET", "/healthz/live"): (OPEN, "/healthz/live", None, 200),
    ("GET", "/healthz/ready"): (OPEN, "/healthz/ready", None, 200),
    ("GET", "/metrics"): (SERVED, "/metrics", None, 200),
    ("POST", "/algorithms"): (RUNNER, "/algorithms", {"algorithm": "of_{name}", "host": "h:1"}, 200),
    ("GET", "/algorithms"): (RUNNER | SERVED, "/algorithms", None, 200),
    ("PUT", "/runners/{runner_id}"): (RUNNER, "/runners/{name}-1", "registration", 200),
    ("DELETE", "/runners/{runner_id}"): (RUNNER | SERVED, "/runners/nobodys", None, 404),
    ("GET", "/runners"): (SERVED, "/runners", None, 200),
    ("GET", "/catalogue"): (SERVED, "/catalogue", None, 200),
    ("PUT", "/owners/{algorithm}"): (SERVED, "/owners/nobodys", {"runner": "text"}, 404),
    ("DELETE", "/owners"): (SERVED, "/owners?runner=text", None, 200),
}


def test_every_documented_call_is_in_the_table_and_tried_here(serve: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()
        calls = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        assert calls == CALLS.keys()
        assert {call for call in calls if ROUTES.find(*call) is None} == set()
        assert document["security"] and document["paths"]["/healthz/live"]["get"]["security"] == []

    serve(scenario)


@pytest.mark.parametrize("call", CALLS, ids="-".join)
def test_calls_are_open_to_those_who_need_them_and_to_nobody_else(
    serve: Callable[..., None], registration: Make, call: tuple[str, str]
) -> None:
    allowed, path, body, status = CALLS[call]
    bearers = {"nobody": None, "text": TEXT, "nlp": NLP, "service": SERVICE, **STRANGERS}

    async def scenario(client: httpx.AsyncClient) -> None:
        for who, token in bearers.items():
            said = registration(name=who, host="h:1", **{f"in_{who}": 1}) if body == "registration" else body
            if isinstance(said, dict) and "algorithm" in said:
                said = {**said, "algorithm": f"of_{who}"}
            answer = await client.request(call[0], path.replace("{name}", who), json=said, headers=bearer(token))
            if call[1] == "/metrics" and who == "metrics":
                expected = {200}
            elif who in allowed or allowed == OPEN:
                expected = {status}
            else:
                expected = {401 if who in ("nobody", *STRANGERS) else 403}
            assert {answer.status_code} == expected, (who, answer.text)
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    serve(scenario)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/swagger/swagger-ui.css"])
def test_pages_need_no_token(serve: Callable[..., None], path: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get(path)).status_code == 200

    serve(scenario)


def test_original_pattern_needs_a_token_at_the_root_too(serve: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        body = {"algorithm": "ocr", "host": "runner:8000"}
        assert [(await client.post("/", json=body)).status_code, (await client.get("/")).status_code] == [401, 401]
        assert (await client.post("/", json=body, headers=bearer(TEXT))).json() == body
        assert (await client.get("/", headers=bearer(TEXT))).json() == {"ocr": "runner:8000"}
        owner = (await client.get("/catalogue", headers=bearer(SERVICE))).json()["algorithms"]["ocr"]["owner"]
        assert owner == "text"

    serve(scenario)


def test_runner_can_be_nobody_but_itself(serve: Callable[..., None], registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        async def put(runner_id: str, token: str, **parts: Any) -> httpx.Response:
            return await client.put(f"/runners/{runner_id}", json=registration(**parts), headers=bearer(token))

        assert (await put("text-1", TEXT, upper=1)).status_code == 200
        # With another's name, at another's id, with another's algorithm.
        refused = await put("evil-1", NLP, name="text", host="h:2", upper=1)
        assert (refused.status_code, refused.json()["code"]) == (403, "other_runner")
        assert (await put("text-1", NLP, name="nlp", host="h:2", boot="b1", junk=1)).status_code == 200
        assert (await put("nlp-1", NLP, name="nlp", host="h:2", upper=1)).json()["clashes"] == {"upper": "text"}
        # Another's lease, and another's algorithm without a lease.
        assert (await client.delete("/runners/text-1?boot=b1", headers=bearer(NLP))).status_code == 204
        assert (await client.delete("/runners/text-1?boot=b1", headers=bearer(NLP))).status_code == 404
        plain = {"algorithm": "upper", "host": "h:3"}
        assert (await client.post("/algorithms", json=plain, headers=bearer(NLP))).json()["code"] == "other_owner"
        catalogue = (await client.get("/catalogue", headers=bearer(SERVICE))).json()
        [runner_id] = catalogue["algorithms"]["upper"]["runners"]
        assert runner_id == known_as("text-1", "text", "k")
        assert catalogue["runners"][runner_id]["name"] == "text"
        assert list(catalogue["left"]) == [known_as("text-1", "nlp", "k")]
        assert (await client.delete("/runners/text-1?boot=b1", headers=bearer(TEXT))).status_code == 204

    serve(scenario)


def test_plain_registrations_of_two_names_do_not_take_from_one_another(serve: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        async def post(algorithm: str, host: str, token: str) -> int:
            body = {"algorithm": algorithm, "host": host}
            return (await client.post("/algorithms", json=body, headers=bearer(token))).status_code

        assert await post("ocr", "h:1", TEXT) == 200
        assert await post("ocr", "h:2", NLP) == 409
        # At the same host, which may be several services behind one address.
        assert await post("lower", "h:1", NLP) == 200
        assert await post("ocr", "h:3", TEXT) == 200
        hosts = (await client.get("/algorithms", headers=bearer(SERVICE))).json()
        assert hosts == {"lower": "h:1", "ocr": "h:3"}

    serve(scenario)


def test_one_name_does_not_fill_the_registry(serve: Callable[..., None], registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        statuses = []
        for port in range(1, 252):
            plain = {"algorithm": f"junk_{port}", "host": f"10.0.0.9:{port}"}
            statuses.append((await client.post("/algorithms", json=plain, headers=bearer(TEXT))).status_code)
        assert statuses == [200] * 250 + [507]
        nlp = registration(name="nlp", **{f"a{number}": 1 for number in range(3)})
        assert (await client.put("/runners/nlp-1", json=nlp, headers=bearer(NLP))).status_code == 200

    serve(scenario)


def test_hosts_of_others_are_refused(serve: Callable[..., None], registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for host in ("http://169.254.169.254:80", "http://203.0.113.9:5432"):
            answer = await client.put(
                "/runners/a", json=registration(name="text", host=host, upper=1), headers=bearer(TEXT)
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")
            plain = {"algorithm": "upper", "host": host}
            answer = await client.post("/algorithms", json=plain, headers=bearer(TEXT))
            assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")
        own = registration(name="text", host="http://localhost:9001", upper=1)
        for _ in range(2):
            assert (await client.put("/runners/a", json=own, headers=bearer(TEXT))).status_code == 200
        runner = (await client.get("/catalogue", headers=bearer(SERVICE))).json()["runners"][known_as("a", "text", "k")]
        assert (runner["host"], runner["address"]) == ("http://localhost:9001", "127.0.0.1")

    serve(scenario, hosts=HostRule("0.0.0.0"))


def test_catalogue_says_which_key_a_runner_has(serve: Callable[..., None], registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        ids = []
        for key in (OLD, NEW):
            headers = bearer(RunnerKeys([key]).runner_token("text"))
            assert (await client.put("/runners/a", json=registration(upper=1), headers=headers)).status_code == 200
            ids.append(
                (await client.get("/catalogue", headers=bearer(SERVICE))).json()["runners"][known_as("a", "text", "k")][
                    "key_id"
                ]
            )
        assert len(set(ids)) == 2
        assert NEW not in str(ids) and OLD not in str(ids)

    serve(scenario)


def test_what_registered_without_a_token_is_forgotten_once_there_are_keys(
    serve: Callable[..., None], registration: Make
) -> None:
    async def without(client: httpx.AsyncClient) -> None:
        await client.put("/runners/a", json=registration(upper=1))
        await client.post("/algorithms", json={"algorithm": "ocr", "host": "h:1"})

    async def with_keys(client: httpx.AsyncClient) -> None:
        catalogue = (await client.get("/catalogue", headers=bearer(SERVICE))).json()
        assert catalogue["runners"] == {}
        assert catalogue["algorithms"].keys() == {"upper", "ocr"}
        await client.put("/runners/a", json=registration(upper=1), headers=bearer(TEXT))

    async def again(client: httpx.AsyncClient) -> None:
        catalogue = (await client.get("/catalogue", headers=bearer(SERVICE))).json()
        assert list(catalogue["runners"]) == [known_as("a", "text", "k")]

    serve(without, keys=None)
    serve(with_keys)
    serve(again)


def test_what_a_key_that_is_none_any_more_has_registered_is_forgotten(
    serve: Callable[..., None], registration: Make
) -> None:
    old = bearer(RunnerKeys([OLD]).runner_token("evil"))

    async def with_both(client: httpx.AsyncClient) -> None:
        await client.post("/algorithms", json={"algorithm": "ocr", "host": "h:1"}, headers=old)
        await client.put("/runners/a", json=registration(upper=1), headers=bearer(TEXT))

    async def with_the_new_one(client: httpx.AsyncClient) -> None:
        catalogue = (await client.get("/catalogue", headers=bearer(SERVICE))).json()
        assert [runner["name"] for runner in catalogue["runners"].values()] == ["text"]
        assert {name: view["owner"] for name, view in catalogue["algorithms"].items()} == {"ocr": None, "upper": "text"}

    serve(with_both)
    serve(with_the_new_one, keys=RunnerKeys([NEW]))


def test_what_a_plain_host_owned_before_there_were_keys_is_free(serve: Callable[..., None], registration: Make) -> None:
    async def without(client: httpx.AsyncClient) -> None:
        await client.post("/algorithms", json={"algorithm": "upper", "host": "127.0.0.1:9001"})

    async def with_keys(client: httpx.AsyncClient) -> None:
        answer = await client.put("/runners/a", json=registration(upper=1), headers=bearer(TEXT))
        assert answer.json()["clashes"] == {}

    serve(without, keys=None)
    serve(with_keys)


def test_hosts_are_checked_by_the_present_rule_after_a_restart(serve: Callable[..., None], registration: Make) -> None:
    async def freely(client: httpx.AsyncClient) -> None:
        for name, token in (("text", TEXT), ("nlp", NLP)):
            host = "http://postgres.invalid:5432" if name == "nlp" else "http://127.0.0.1:9001"
            body = registration(name=name, host=host, **{name: 1})
            assert (await client.put(f"/runners/{name}", json=body, headers=bearer(token))).status_code == 200

    async def by_a_rule(client: httpx.AsyncClient) -> None:
        assert (await client.get("/catalogue", headers=bearer(SERVICE))).json()["runners"] == {}

    serve(freely)
    serve(by_a_rule, hosts=HostRule("0.0.0.0"))


def test_name_that_is_not_found_in_time_holds_nobody_up(serve: Callable[..., None], registration: Make) -> None:
    class Slow(NameLookup):
        async def _look_up(self, name: str) -> list[Address] | None:
            if name == "slow.invalid":
                await asyncio.sleep(30)
            return [ip_address("127.0.0.1")]

    async def scenario(client: httpx.AsyncClient) -> None:
        async def put(name: str, host: str, token: str) -> httpx.Response:
            body = registration(name=name, host=host, **{f"a_{name}": 1})
            body["algorithms"][0]["description"] = "x" * 40_000
            return await client.put(f"/runners/{name}", json=body, headers=bearer(token))

        slow = [asyncio.create_task(put("text", "http://slow.invalid:80", TEXT)) for _ in range(5)]
        honest = await put("nlp", "http://nlp.example:80", NLP)
        assert honest.status_code == 200
        answers = await asyncio.gather(*slow)
        assert {(each.status_code, each.json()["code"]) for each in answers} == {(503, "lookup_pending")}
        assert all(each.headers["Retry-After"] == "1" for each in answers)

    serve(scenario, hosts=HostRule("0.0.0.0", lookup=Slow()))


def told(tmp_path: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "runner_discovery", *words]
    return subprocess.run(command, env={"PATH": "", **variables}, cwd=tmp_path, capture_output=True, text=True)


def test_command_prints_tokens(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{NEW}\n{OLD}\n")
    assert told(tmp_path, "token", "text", RUNNER_KEYS_FILE="keys").stdout.strip() == TEXT
    assert told(tmp_path, "token", "text", "--runs", RUNNER_KEYS=NEW).stdout.strip() == run_token_of(TEXT)


@pytest.mark.parametrize(("words", "variables"), [(["text"], {}), ([], {"RUNNER_KEYS": NEW})])
def test_command_says_what_it_needs(tmp_path: Path, words: list[str], variables: dict[str, str]) -> None:
    answer = told(tmp_path, "token", *words, **variables)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "RUNNER_KEYS_FILE" in answer.stderr


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"HOST": "0.0.0.0"}, "set RUNNER_KEYS_FILE, or AUTH=none"),
        ({"AUTH": "tokens"}, "AUTH=tokens, and there are none"),
        ({"RUNNER_KEYS": "short"}, "RUNNER_KEYS has a value that cannot be used: each key must have"),
    ],
)
def test_discovery_does_not_start_open_to_everybody(tmp_path: Path, variables: dict[str, str], says: str) -> None:
    answer = told(tmp_path, PORT="0", **variables)
    assert answer.returncode != 0
    assert says in answer.stderr and "short" not in answer.stderr.replace("shorten", "")
