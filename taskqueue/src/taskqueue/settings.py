"""Settings of the services that use the queue, the store and the runner discovery."""

import sys
from typing import Annotated, TypeVar

from pydantic import Field

from runnerlib.service.logs import configure_logging
from runnerlib.service.settings import FromFile, KeySettings, load_settings
from taskqueue.addresses import check_addresses, discovery_url_from, queue_url_from
from taskqueue.errors import TaskQueueError

S = TypeVar("S", bound="QueueServiceSettings")


class QueueServiceSettings(KeySettings):
    """Where the discovery, the queue and the store are."""

    discovery_url: str = Field(
        default="", description="Address of runner-discovery; without one, it is looked for on this machine."
    )
    runner_discovery_container_name: str = Field(default="", description="Host of discovery, without DISCOVERY_URL.")
    runner_discovery_port: int = Field(
        default=8010, ge=1, le=65535, description="Port of discovery, without DISCOVERY_URL."
    )
    queue_url: Annotated[str, FromFile()] = Field(
        default="", description="The broker, `amqp://USER:PASSWORD@HOST/VHOST`; empty: the queue is in the SQLite file."
    )
    rabbitmq_host: str = Field(default="", description="Host of the broker, without QUEUE_URL; the user is guest.")
    queue_name: str = Field(default="", description="Nothing but `tasks`, should it be set at all.")
    database_url: Annotated[str, FromFile()] = Field(
        default="", description="The store, `postgresql://…`; empty or `sqlite:` is the embedded one."
    )

    @property
    def discovery(self) -> str:
        """Base URL of discovery."""
        return discovery_url_from(self.discovery_url, self.runner_discovery_container_name, self.runner_discovery_port)

    @property
    def queue(self) -> str:
        """URL of the broker; empty when there is none. Raises UnsuitableAddress for another queue name."""
        return queue_url_from(self.queue_url, self.rabbitmq_host, self.queue_name)


def load_for_servers(cls: type[S], service: str) -> S:
    """Reads the settings of a process of its own, and configures its logs.

    Exits with code 2 and an error message unless they name RabbitMQ and PostgreSQL.
    """
    settings = load_settings(cls)
    try:
        check_addresses(settings.queue, settings.database_url)
    except TaskQueueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    configure_logging(service, settings)
    return settings
