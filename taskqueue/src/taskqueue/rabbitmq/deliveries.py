"""What the broker hands over by a channel."""

from dataclasses import dataclass

from pika import spec


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message as the broker handed it over. `tag` settles it, on the channel it came by."""

    tag: int
    body: bytes
    properties: spec.BasicProperties
    redelivered: bool
    routing_key: str
    exchange: str


@dataclass(frozen=True, slots=True)
class ReturnedMessage:
    """A mandatory message that no queue wanted. The broker confirms it all the same, right after."""

    exchange: str
    routing_key: str
    body: bytes
    properties: spec.BasicProperties
    reason: str


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the broker says of a queue: messages that are ready, and its consumers."""

    name: str
    messages: int
    consumers: int


def incoming(
    method: spec.Basic.Deliver | spec.Basic.GetOk, properties: spec.BasicProperties, body: bytes
) -> IncomingMessage:
    return IncomingMessage(
        method.delivery_tag, body, properties, method.redelivered, method.routing_key, method.exchange
    )
