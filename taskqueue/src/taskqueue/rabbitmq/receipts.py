"""What a channel has handed out and has not settled yet."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.tags import Tags


class Hold:
    """The unsettled messages of one channel. Once the channel is gone, settling them is silently nothing.

    `on_settled` is told the tags that were settled.
    """

    def __init__(self, channel: Channel, on_settled: Callable[[list[int]], None]) -> None:
        self._channel = channel
        self._on_settled = on_settled
        self._tags = Tags()

    @property
    def alive(self) -> bool:
        return self._channel.is_open

    @property
    def unsettled(self) -> int:
        return len(self._tags)

    def arrived(self, tag: int) -> None:
        self._tags.arrived(tag)

    def ack(self, tags: Iterable[int], *, reserved: bool = False) -> None:
        self._settle(tags, self._channel.ack, reserved)

    def nack(self, tags: Iterable[int], *, reserved: bool = False) -> None:
        """Back to the head of the queue."""
        self._settle(tags, self._channel.nack, reserved)

    def reserve(self, tag: int) -> bool:
        """For whoever must do something else first; False when it is settled, spoken for, or stale."""
        return self.alive and self._tags.reserve(tag)

    def _settle(self, tags: Iterable[int], send: Callable[..., None], reserved: bool) -> None:
        if not self.alive:
            return
        settled, calls = self._tags.settle(tags, reserved=reserved)
        for tag, multiple in calls:
            send(tag, multiple=multiple)
        if settled:
            self._on_settled(settled)


class Receipt(NamedTuple):
    """Where one message is to be settled. `broker_count`: how often the broker says that it was handed out before.

    `is_task`: it came by a feed and was read; otherwise it is an arrival at the front door.
    """

    hold: Hold
    tag: int
    broker_count: int = 0
    is_task: bool = False


def by_hold(receipts: Iterable[object]) -> dict[Hold, list[int]]:
    """The tags to settle on each channel that is still open; what is not a receipt of ours is left out."""
    tags: dict[Hold, list[int]] = {}
    for receipt in receipts:
        if isinstance(receipt, Receipt) and receipt.hold.alive:
            tags.setdefault(receipt.hold, []).append(receipt.tag)
    return tags
