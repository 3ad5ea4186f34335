"""Which queue goes with which store."""

import pytest

from taskqueue.addresses import check_addresses, discovery_url_from, is_embedded, queue_url_from
from taskqueue.errors import UnsuitableAddress

BROKER = "amqp://guest:hush@broker/"
POSTGRES = "postgresql://me:hush@database/tasks"


@pytest.mark.parametrize("queue", [BROKER, "amqps://guest:hush@broker:5671/one?verify=no", "AMQP://broker"])
@pytest.mark.parametrize("database", [POSTGRES, "postgres://database/tasks", "postgresql+psycopg://database/tasks"])
def test_broker_goes_with_postgresql(queue: str, database: str) -> None:
    check_addresses(queue, database)
    assert not is_embedded(queue, database)


@pytest.mark.parametrize(
    ("queue", "database", "advice"),
    [
        ("", "", "worker up"),
        ("", "sqlite:///tasks.db", "worker up"),
        (BROKER, "", "DATABASE_URL=postgresql://"),
        (BROKER, "sqlite:///tasks.db", "DATABASE_URL=postgresql://"),
        ("", POSTGRES, "QUEUE_URL=amqp://"),
        ("redis://:hush@cache", POSTGRES, "QUEUE_URL must name a RabbitMQ broker"),
        (BROKER, "mysql://me:hush@database/tasks", "DATABASE_URL must name a PostgreSQL database"),
        (BROKER, "me:hush@database", "DATABASE_URL must name a PostgreSQL database"),
    ],
)
def test_other_pairs_are_refused_in_a_sentence_without_the_password(queue: str, database: str, advice: str) -> None:
    with pytest.raises(UnsuitableAddress) as refused:
        check_addresses(queue, database)
    assert advice in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("queue", "host", "url"),
    [
        ("", "", ""),
        (BROKER, "ignored", BROKER),
        ("", "rabbit", "amqp://guest:guest@rabbit:5672/"),
        ("", "rabbit:5673", "amqp://guest:guest@rabbit:5673/"),
        ("", "::1", "amqp://guest:guest@[::1]:5672/"),
    ],
)
def test_host_alone_means_the_broker_s_own_defaults(queue: str, host: str, url: str) -> None:
    assert queue_url_from(queue, host, "tasks") == url


def test_another_queue_name_is_refused() -> None:
    with pytest.raises(UnsuitableAddress, match="QUEUE_NAME can only be 'tasks'"):
        queue_url_from(BROKER, "", "work")


def test_discovery_is_found_by_its_container_s_name() -> None:
    assert discovery_url_from("http://there:1", "discovery", 8010) == "http://there:1"
    assert discovery_url_from("", "discovery", 8001) == "http://discovery:8001"
    assert discovery_url_from("", "", 8010) == "http://127.0.0.1:8010"
