"""What the package gives to programs."""

import subprocess
import sys

import producer

NAMES = [
    "BrokerUnreachable",
    "DeadLetterDetail",
    "DeadLetterFilter",
    "DeadLetterView",
    "DeadLettersDone",
    "FailureCode",
    "GatewayClient",
    "GatewayUnreachable",
    "NoGateway",
    "NotAllSent",
    "NotFinished",
    "ProducerError",
    "Refused",
    "SomeRefused",
    "TaskClient",
    "TaskFailed",
    "TaskState",
    "TaskSummaryView",
    "TaskView",
]


def test_public_names_are_these_and_all_are_there() -> None:
    assert sorted(NAMES) == sorted(producer.__all__)
    assert [getattr(producer, name).__name__ for name in NAMES] == NAMES


def test_other_names_are_told_as_of_any_module() -> None:
    assert not hasattr(producer, "no_such_name")


def test_the_command_loads_no_other_package_of_ours_and_nothing_that_only_they_need() -> None:
    unwanted = (
        "runnerlib",
        "taskqueue",
        "pydantic",
        "pika",
        "psycopg",
        "sqlalchemy",
        "fastapi",
        "jsonschema",
        "aiohttp",
    )
    check = f"import sys, producer.cli; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
