"""The servers that other tests rely on do what their names say."""

import threading

import pika
import psycopg
import pytest

pytestmark = pytest.mark.timeout(240)


def test_broker_is_of_the_version_that_is_asked_for_and_starts_empty(broker, broker_version):
    assert broker.management("GET", "overview")["rabbitmq_version"].startswith(f"{broker_version}.")
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", "q", b"x")
    assert broker.queue_state("nothing") is None


@pytest.mark.slow
def test_killed_broker_keeps_what_it_confirmed(own_broker):
    server = own_broker()
    with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"x", pika.BasicProperties(delivery_mode=2), mandatory=True)
    # RabbitMQ 3.10 and 4.0 lose track of a queue that was declared less than a second before they were killed
    threading.Event().wait(1.5)
    server.kill()
    server.start()
    with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
        _, _, body = next(connection.channel().consume("q", inactivity_timeout=20))
        assert body == b"x"


def test_database_is_fresh(database_url):
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        connection.execute("CREATE TABLE t (x int)")


def test_killed_database_server_keeps_what_was_committed(own_postgres):
    with psycopg.connect(own_postgres.url) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    own_postgres.kill()
    own_postgres.start()
    with psycopg.connect(own_postgres.url) as connection:
        assert connection.execute("SELECT x FROM t").fetchone() == (1,)
