"""Messages that were delivered and are not settled yet, and how often tasks were returned in good order."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from taskqueue.rabbitmq.channel import Channel

#: Returned tasks that are remembered; the oldest are forgotten first, which only makes their counts too high.
MOST_REMEMBERED = 20_000


class UnackedDeliveries:
    """The unsettled messages of one channel, by delivery tag. Once the channel is closed, settling them does nothing.

    A tag that is settled twice closes the channel (406), so each is settled once. A prefix of the oldest tags becomes
    one call with `multiple`; tags beyond a gap are settled one by one. `on_settled` is called with the settled tags.
    """

    def __init__(self, channel: Channel, on_settled: Callable[[list[int]], None]) -> None:
        self._channel = channel
        self._on_settled = on_settled
        #: in the order in which the channel numbered them, settled ones included until those before them are settled
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._reserved: set[int] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self._reserved)

    @property
    def alive(self) -> bool:
        """Whether the channel is open, so that its messages can still be settled."""
        return self._channel.is_open

    def arrived(self, tag: int) -> None:
        self._order.append(tag)
        self._open.add(tag)

    def reserve(self, tag: int) -> bool:
        """From now on only `reserved=True` settles it. Returns False if it is settled, reserved or stale already."""
        if not self.alive or tag not in self._open:
            return False
        self._open.remove(tag)
        self._reserved.add(tag)
        return True

    def ack(self, tags: Iterable[int], *, reserved: bool = False) -> None:
        self._settle(tags, self._channel.ack, reserved)

    def nack(self, tags: Iterable[int], *, reserved: bool = False) -> None:
        """Returns the messages to the head of their queue."""
        self._settle(tags, self._channel.nack, reserved)

    def _settle(self, tags: Iterable[int], send: Callable[..., None], reserved: bool) -> None:
        if not self.alive:
            return
        waiting = self._reserved if reserved else self._open
        settled = waiting.intersection(tags)
        waiting -= settled
        prefix: list[int] = []
        while self._order and self._order[0] not in self._open and self._order[0] not in self._reserved:
            tag = self._order.popleft()
            if tag in settled:
                prefix.append(tag)
        if prefix:
            send(prefix[-1], multiple=len(prefix) > 1)
        for tag in sorted(settled.difference(prefix)):
            send(tag, multiple=False)
        if settled:
            self._on_settled(sorted(settled))


class Receipt(NamedTuple):
    """Identifies one delivered message. `broker_count` is how often the broker says it was delivered before.

    `is_task`: it was read as a task of an algorithm's queue; otherwise it is a message of the ingress queue.
    """

    unacked: UnackedDeliveries
    tag: int
    broker_count: int = 0
    is_task: bool = False


def ack(receipts: Iterable[object], *, reserved: bool = False) -> None:
    """Acknowledges messages on the channels they came by. Receipts that are stale, or not ours, are ignored."""
    for unacked, tags in _by_channel(receipts).items():
        unacked.ack(tags, reserved=reserved)


def nack(receipts: Iterable[object], *, reserved: bool = False) -> None:
    """Returns messages to the head of their queues, as `ack` acknowledges them."""
    for unacked, tags in _by_channel(receipts).items():
        unacked.nack(tags, reserved=reserved)


def _by_channel(receipts: Iterable[object]) -> dict[UnackedDeliveries, list[int]]:
    tags: dict[UnackedDeliveries, list[int]] = {}
    for receipt in receipts:
        if isinstance(receipt, Receipt) and receipt.unacked.alive:
            tags.setdefault(receipt.unacked, []).append(receipt.tag)
    return tags


class _Return(NamedTuple):
    broker_count: int
    uncounted: int


class ReturnCounter:
    """How often this process returned each task in good order, by task id and attempt. Pure.

    A quorum queue counts every return of a message (newer brokers: not those by `basic.nack`), and that count is what
    identifies poison. So returns of tasks that did not run are remembered here and subtracted.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._returns: OrderedDict[tuple[str, int], _Return] = OrderedDict()

    def __len__(self) -> int:
        return len(self._returns)

    def uncounted(self, task_id: str, attempt: int, broker_count: int) -> int:
        """How many of the broker's `broker_count` were returns in good order."""
        known = self._returns.get((task_id, attempt)) if broker_count else None
        if known is None:
            return 0
        return known.uncounted + (1 if broker_count > known.broker_count else 0)

    def returned(self, task_id: str, attempt: int, broker_count: int) -> None:
        """The task is about to be returned; the broker has counted `broker_count` until now."""
        before = self.uncounted(task_id, attempt, broker_count)
        self._returns[task_id, attempt] = _Return(broker_count, before)
        self._returns.move_to_end((task_id, attempt))
        if len(self._returns) > self._most:
            self._returns.popitem(last=False)

    def forget(self, task_id: str, attempt: int) -> None:
        """The task was published anew: the broker counts from zero again."""
        self._returns.pop((task_id, attempt), None)
