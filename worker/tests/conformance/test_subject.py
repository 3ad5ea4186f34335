"""What a runner is probed with."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from worker.conformance.asking import Asker
from worker.conformance.errors import BadRequest, Unreachable
from worker.conformance.subject import NOTHING, Subject, Wishes, find_subject, other_than

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
UPPER = {"name": "upper", "input_schema": SCHEMA, "example": {"payload": {"text": "a"}}, "limits": {"slots": 3}}
PLAIN = {"name": "lower", "input_schema": {}}


@pytest.fixture
def find(serve: Any) -> Any:
    def find(wishes: Wishes, described: Any = None, status: int = 200) -> Subject:
        async def schemas(_: web.Request) -> web.Response:
            return web.json_response(described, status=status)

        async def scenario() -> Subject:
            app = web.Application()
            app.router.add_get("/schemas", schemas)
            async with serve(app) as url, Asker(url, 5) as asker:
                return await find_subject(asker, wishes)

        return asyncio.run(scenario())

    return find


def test_the_first_algorithm_with_an_example_is_taken(find: Any) -> None:
    # More fields than the schema names are allowed by it; a list is not.
    assert find(Wishes(), [PLAIN, UPPER]) == Subject("upper", {"text": "a"}, [{"text": "a"}], NOTHING, 3)


def test_what_was_asked_for_wins(find: Any) -> None:
    wishes = Wishes("upper", {"text": "b"}, None, {"text": "slow"})
    assert find(wishes, [UPPER]) == Subject("upper", {"text": "b"}, None, {"text": "slow"}, 3)


def test_a_schema_that_takes_everything_has_no_unfit_payload(find: Any) -> None:
    assert find(Wishes("lower", payload=1), [PLAIN]).unfit is NOTHING


@pytest.mark.parametrize("described", [None, {"upper": {}}, [{"nameless": 1}], 7])
def test_a_runner_that_says_nothing_is_tried_by_what_was_asked_for(find: Any, described: Any) -> None:
    assert find(Wishes("upper", {"text": "a"}), described) == Subject("upper", {"text": "a"}, [{"text": "a"}], NOTHING)
    assert find(Wishes("upper", 1), None, 404).unfit == [1]


@pytest.mark.parametrize(
    ("wishes", "described", "says"),
    [
        (Wishes(), None, "--algorithm"),
        (Wishes("upper"), None, "--payload"),
        (Wishes("lower"), [PLAIN], "--payload"),
        (Wishes("uper"), [UPPER], "it has upper"),
    ],
)
def test_what_is_missing_is_told(find: Any, wishes: Wishes, described: Any, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        find(wishes, described)


def test_nobody_there_is_told(free_port: Any) -> None:
    async def scenario() -> None:
        async with Asker(f"http://127.0.0.1:{free_port()}", 5) as asker:
            await find_subject(asker, Wishes())

    with pytest.raises(Unreachable, match="nobody answers at"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    "payload", [{"text": "a"}, {"text": [], "n": 1}, {}, {"list": []}, "a", 1, 1.5, True, None, [1]], ids=repr
)
def test_another_payload_is_another_one(payload: Any) -> None:
    assert other_than(payload) != payload
