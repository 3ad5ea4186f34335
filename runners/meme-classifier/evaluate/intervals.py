"""How sure a share is that was counted on so many pictures."""

import math
from dataclasses import dataclass

#: Standard deviations that 95 % lie within.
Z = 1.959964


@dataclass(frozen=True)
class Share:
    """`hits` of `total`."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total

    def interval(self) -> tuple[float, float]:
        """95 %, by Wilson's score (Wilson 1927)."""
        spread = Z * math.sqrt(self.value * (1 - self.value) / self.total + Z**2 / (4 * self.total**2))
        middle = self.value + Z**2 / (2 * self.total)
        whole = 1 + Z**2 / self.total
        return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:6.1%}  ({low:.1%} – {high:.1%}; {self.hits} of {self.total})"
