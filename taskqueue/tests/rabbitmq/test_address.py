import ssl

import pytest

from taskqueue.errors import TaskQueueError, UnsuitableAddress
from taskqueue.rabbitmq.address import parse_queue_url


def test_a_whole_url_is_read() -> None:
    address = parse_queue_url(
        "amqp://me:s%2Fecret@one:5673,two/tasks%2Fprod?heartbeat=7&blocked_connection_timeout=2.5"
    )

    assert address.hosts == (("one", 5673), ("two", 5672))
    assert (address.user, address.password, address.vhost) == ("me", "s/ecret", "tasks/prod")
    assert (address.heartbeat_seconds, address.blocked_seconds) == (7, 2.5)
    assert address.tls is None


@pytest.mark.parametrize("url", ["amqp://broker", "amqp://broker/", "amqp://broker/%2F", "AMQP://broker"])
def test_what_is_left_out_has_the_usual_defaults(url: str) -> None:
    address = parse_queue_url(url)

    assert address.hosts == (("broker", 5672),)
    assert (address.user, address.password, address.vhost) == ("guest", "guest", "/")
    assert (address.heartbeat_seconds, address.blocked_seconds) == (15, 30.0)


def test_hosts_may_be_ipv6_addresses() -> None:
    assert parse_queue_url("amqp://a:b@[::1]:5673,[fe80::1],c").hosts == (("::1", 5673), ("fe80::1", 5672), ("c", 5672))


def test_what_is_shown_never_contains_the_password() -> None:
    address = parse_queue_url("amqp://me:hunter2@one:1,two:2/x%2Fy")

    assert address.shown == "amqp://me@one:1,two:2/x%2Fy"
    assert "hunter2" not in repr(address)


def test_tls_trusts_the_system_and_checks_names_unless_told_otherwise() -> None:
    address = parse_queue_url("amqps://broker")
    careless = parse_queue_url("amqps://broker?verify=no")

    assert address.hosts == (("broker", 5671),)
    assert address.shown.startswith("amqps://")
    assert address.tls is not None
    assert address.tls.verify_mode is ssl.CERT_REQUIRED
    assert address.tls.check_hostname
    assert careless.tls is not None
    assert careless.tls.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://me:hunter2@broker", "begin with amqp://"),
        ("broker:5672", "begin with amqp://"),
        ("amqp://me:hunter2@", "names no host"),
        ("amqp://me:hunter2@one,,two", "names no host"),
        ("amqp://me:hunter2@broker:x", "port for host 'broker'"),
        ("amqp://me:hunter2@broker:0", "port for host 'broker'"),
        ("amqp://me:hunter2@broker:70000", "port for host 'broker'"),
        ("amqp://me:hunter2@broker/a/b", "%2F"),
        ("amqp://me:hun#ter2@broker", "%23"),
        ("amqp://me:x?hunter2@broker/", "%3F"),
        ("amqp://me:x?a=b&hunter2=@broker/", "%3F"),
        ("amqp://me:12,hunter2:x/y@broker", "%2F"),
        ("amqp://me:hunter2@broker?heartbeats=3", "unknown option 'heartbeats'"),
        ("amqp://me:hunter2@broker?heartbeat=0", "above 0"),
        ("amqp://me:hunter2@broker?heartbeat=3601", "from 1 to 3600"),
        ("amqp://me:x@hun/ter2@broker", "write %40 and %2F"),
        ("amqp://me:hunter2@broker?heartbeat=soon", "'heartbeat' must be"),
        ("amqp://me:hunter2@broker?heartbeat=1.5", "whole seconds"),
        ("amqp://me:hunter2@broker?heartbeat=nan", "'heartbeat' must be"),
        ("amqp://me:hunter2@broker?heartbeat=3&heartbeat=4", "twice"),
        ("amqp://me:hunter2@broker?cafile=x", "only with amqps://"),
        ("amqps://me:hunter2@broker?cafile=/nowhere/ca.pem", "cannot be read"),
        ("amqps://me:hunter2@broker?keyfile=/nowhere/key.pem", "without a 'certfile'"),
        ("amqps://me:hunter2@broker?verify=maybe", "yes or no"),
    ],
)
def test_nonsense_is_refused_with_a_sentence_that_keeps_the_password(url: str, says: str) -> None:
    with pytest.raises(UnsuitableAddress, match=r"^The queue URL") as refusal:
        parse_queue_url(url)

    assert isinstance(refusal.value, TaskQueueError)
    assert says in str(refusal.value)
    assert "hun" not in str(refusal.value)
