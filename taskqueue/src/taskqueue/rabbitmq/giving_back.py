"""Tasks handed back unrun: to the head of their queue, and uncounted."""

import logging
from collections.abc import Sequence

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.messages import renewed_message
from taskqueue.rabbitmq.publisher import Publisher
from taskqueue.rabbitmq.receipts import Receipt, by_hold
from taskqueue.rabbitmq.releases import Releases
from taskqueue.tasks import Delivery

_log = logging.getLogger(__name__)

#: A message that the broker has counted so often is published anew, so that the broker's count stays low.
RENEW_AT = 2
#: What cannot be published anew in this time goes back to the head of its queue all the same.
_PUBLISH_SECONDS = 2.0


class GivingBack:
    """Never raises for a broker that is away: what is not settled is handed out again in any case."""

    def __init__(self, publisher: Publisher, releases: Releases) -> None:
        self._publisher = publisher
        self._releases = releases

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        to_renew = [delivery for delivery in deliveries if _is_worn(delivery.receipt)]
        renewed = {id(delivery) for delivery in to_renew}
        self._return([delivery for delivery in deliveries if id(delivery) not in renewed])
        to_renew = [delivery for delivery in to_renew if delivery.receipt.hold.reserve(delivery.receipt.tag)]
        if to_renew:
            await self._renew(to_renew)

    async def _renew(self, deliveries: Sequence[Delivery]) -> None:
        messages = [renewed_message(delivery) for delivery in deliveries]
        try:
            await self._publisher.publish(messages, timeout_seconds=_PUBLISH_SECONDS)
        except (QueueUnavailable, QueueClosed) as error:
            _log.info("%d tasks go back as they are: %s", len(deliveries), error)
            self._return(deliveries, reserved=True)
            return
        for delivery in deliveries:
            self._releases.forget(delivery.id, delivery.attempt)
        for hold, tags in by_hold(delivery.receipt for delivery in deliveries).items():
            hold.ack(tags, reserved=True)

    def _return(self, deliveries: Sequence[Delivery], *, reserved: bool = False) -> None:
        for delivery in deliveries:
            receipt = delivery.receipt
            if isinstance(receipt, Receipt) and receipt.is_task:
                self._releases.released(delivery.id, delivery.attempt, receipt.broker_count)
        for hold, tags in by_hold(delivery.receipt for delivery in deliveries).items():
            hold.nack(tags, reserved=reserved)


def _is_worn(receipt: object) -> bool:
    return isinstance(receipt, Receipt) and receipt.is_task and receipt.broker_count >= RENEW_AT
