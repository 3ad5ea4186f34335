"""What this process has been handed and has not settled. Lives on the event loop."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from taskqueue.tasks import Delivery


class Receipt(NamedTuple):
    """Fences the settling of one delivery: which row, and the random number of the claim."""

    seq: int
    token: int


class Holder(Protocol):
    """Told when deliveries of its own were settled."""

    def settled(self, count: int) -> None: ...


@dataclass(slots=True)
class _Hold:
    holder: Holder | None
    #: the store has ended the task or moved it on to the next attempt: nothing is left to write
    over: bool = False


class Outstanding:
    """The deliveries of all feeds, by receipt."""

    def __init__(self) -> None:
        self._holds: dict[Receipt, _Hold] = {}

    def add(self, deliveries: Iterable[Delivery], holder: Holder | None) -> None:
        for delivery in deliveries:
            self._holds[delivery.receipt] = _Hold(holder)

    def mark_over(self, deliveries: Iterable[Delivery]) -> None:
        """The rows have moved on; acknowledging these needs no write."""
        for delivery in deliveries:
            if isinstance(delivery.receipt, Receipt):
                hold = self._holds.get(delivery.receipt)
                if hold is not None:
                    hold.over = True

    def is_over(self, delivery: Delivery) -> bool:
        hold = self._holds.get(delivery.receipt)
        return hold is None or hold.over

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Forgets them and makes room in their feeds. Once: a second time changes nothing."""
        counts: dict[int, tuple[Holder, int]] = {}
        for delivery in deliveries:
            hold = self._holds.pop(delivery.receipt, None)
            if hold is not None and hold.holder is not None:
                _, count = counts.get(id(hold.holder), (hold.holder, 0))
                counts[id(hold.holder)] = (hold.holder, count + 1)
        for holder, count in counts.values():
            holder.settled(count)

    def leased(self) -> list[Receipt]:
        """The receipts whose rows are still ours."""
        return [receipt for receipt, hold in self._holds.items() if not hold.over]
