"""Tasks as messages, before anybody is asked."""

import json
from typing import Any

import pytest

from producer.client.steps import task_message


def written(*given: Any, **more: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(task_message(*given, **more).body)
    return message


def test_fields_are_for_messages_that_do_not_have_them() -> None:
    fields = {"expires_seconds": 60, "delay_seconds": 5.5, "group": "acme"}
    plain = {"algorithm": "upper", "payload": 1, "id": "mine"}
    assert written(("upper", 1), "mine", fields) == plain | fields
    own = plain | {"group": "other", "delay_seconds": None}
    assert written(own, fields=fields) == own | {"expires_seconds": 60}


@pytest.mark.parametrize("fields", [None, {}, {"expires_seconds": None, "delay_seconds": None, "group": None}])
def test_fields_that_nobody_gave_are_left_out(fields: Any) -> None:
    assert written(("upper", 1), "mine", fields) == {"algorithm": "upper", "payload": 1, "id": "mine"}
