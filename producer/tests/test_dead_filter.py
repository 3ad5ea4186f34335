"""A filter as the gateway is told it."""

from datetime import datetime, timezone

from producer.dead_filter import DeadLetterFilter
from runnerlib.contract import FailureCode


def test_only_what_is_wanted_is_said() -> None:
    assert DeadLetterFilter().body() == DeadLetterFilter().query() == {}
    wanted = DeadLetterFilter(
        algorithm="upper",
        codes=[FailureCode.TIMEOUT],
        task_id="a",
        created_from=datetime(2026, 5, 31, 12, tzinfo=timezone.utc),
    )
    body = wanted.body()
    assert datetime.fromisoformat(body.pop("created_from")) == wanted.created_from
    assert body == {"algorithm": "upper", "codes": ["timeout"], "task_id": "a"}
    assert wanted.query().keys() == {"algorithm", "code", "task_id", "created_from"}
    assert wanted.query()["code"] == ["timeout"]
