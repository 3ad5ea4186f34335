"""Which queue goes with which store, and the variables that name them. Pure; opens nothing and shows no password."""

import re

from taskqueue.errors import UnsuitableAddress

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BROKER = ("amqp", "amqps")
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
#: The ingress queue; every party knows it by this name.
_INGRESS_QUEUE = "tasks"


def is_embedded(queue_url: str, database_url: str) -> bool:
    """Whether queue and store are one SQLite file."""
    return not queue_url and (not database_url or _scheme(database_url).startswith("sqlite"))


def check_addresses(queue_url: str, database_url: str) -> None:
    """For a process of its own, which needs RabbitMQ and PostgreSQL. Raises UnsuitableAddress with a sentence."""
    if is_embedded(queue_url, database_url):
        raise UnsuitableAddress(
            "On SQLite the controller and the gateway are one process, because one process must own the file; start "
            "both with `worker up`, or set QUEUE_URL=amqp://... and DATABASE_URL=postgresql://..."
        )
    if queue_url and _scheme(queue_url) not in _BROKER:
        raise UnsuitableAddress("QUEUE_URL must name a RabbitMQ broker: amqp://USER:PASSWORD@HOST:5672/VHOST")
    if not database_url or _scheme(database_url).startswith("sqlite"):
        raise UnsuitableAddress(
            "A queue on RabbitMQ needs its store in PostgreSQL, which several processes can share; "
            "set DATABASE_URL=postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        )
    if _scheme(database_url) not in _POSTGRES:
        raise UnsuitableAddress(
            "DATABASE_URL must name a PostgreSQL database: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        )
    if not queue_url:
        raise UnsuitableAddress(
            "A queue in PostgreSQL is not offered; set QUEUE_URL=amqp://USER:PASSWORD@HOST:5672/VHOST, "
            "and PostgreSQL keeps the results"
        )


def queue_url_from(queue_url: str, rabbitmq_host: str, queue_name: str = "") -> str:
    """QUEUE_URL, or the one that RABBITMQ_HOST alone means. Raises UnsuitableAddress for another QUEUE_NAME."""
    if queue_name not in ("", _INGRESS_QUEUE):
        raise UnsuitableAddress(
            f"QUEUE_NAME can only be {_INGRESS_QUEUE!r}: every sender and every controller knows the queue by that "
            "name; use a virtual host of its own for a second environment (the path of QUEUE_URL)"
        )
    if queue_url or not rabbitmq_host:
        return queue_url
    host = f"[{rabbitmq_host}]" if rabbitmq_host.count(":") > 1 else rabbitmq_host
    return f"amqp://guest:guest@{host}/" if ":" in host.rpartition("]")[2] else f"amqp://guest:guest@{host}:5672/"


def discovery_url_from(discovery_url: str, container_name: str, port: int) -> str:
    """DISCOVERY_URL, or the one that RUNNER_DISCOVERY_CONTAINER_NAME and RUNNER_DISCOVERY_PORT mean."""
    return discovery_url or (f"http://{container_name}:{port}" if container_name else f"http://127.0.0.1:{port}")


def _scheme(url: str) -> str:
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else ""
