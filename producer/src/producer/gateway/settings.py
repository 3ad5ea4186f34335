"""What an operator of the gateway can choose."""

from pydantic import Field

from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from runnerlib.service.settings import ServiceSettings
from taskqueue.addresses import discovery_url_from, queue_url_from


class GatewaySettings(ServiceSettings):
    """Environment variables of the gateway."""

    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    discovery_url: str = Field(
        default="", description="Address of runner-discovery; without one, it is looked for on this machine."
    )
    runner_discovery_container_name: str = Field(default="", description="Host of discovery, without DISCOVERY_URL.")
    runner_discovery_port: int = Field(
        default=8010, ge=1, le=65535, description="Port of discovery, without DISCOVERY_URL."
    )
    queue_url: str = Field(
        default="", description="The broker, `amqp://USER:PASSWORD@HOST/VHOST`; empty: the queue is in the SQLite file."
    )
    rabbitmq_host: str = Field(default="", description="Host of the broker, without QUEUE_URL; the user is guest.")
    queue_name: str = Field(default="", description="Nothing but `tasks`, should it be set at all.")
    database_url: str = Field(
        default="", description="The store, `postgresql://…`; empty or `sqlite:` is the embedded one."
    )
    max_message_bytes: int = Field(
        default=DEFAULT_MESSAGE_BYTES,
        ge=1024,
        le=MAX_MESSAGE_BYTES,
        description="Largest message that is taken; larger data is passed by reference.",
    )
    unknown_algorithm_grace_seconds: float = Field(
        default=600,
        ge=0,
        description="How long a task waits for an algorithm that nobody has registered, as controllers have it.",
    )

    @property
    def discovery(self) -> str:
        """Base URL of discovery."""
        return discovery_url_from(self.discovery_url, self.runner_discovery_container_name, self.runner_discovery_port)

    @property
    def queue(self) -> str:
        """URL of the broker; empty when there is none. Raises UnsuitableAddress for another queue name."""
        return queue_url_from(self.queue_url, self.rabbitmq_host, self.queue_name)
