"""What can go wrong between a client and the gateway. Each message is a sentence for the person who sent the task."""

from typing import Any


class ProducerError(Exception):
    """Base of this package's errors."""


class GatewayUnreachable(ProducerError):
    """Nobody answers at the gateway's address, or something else than a gateway does."""


class Refused(ProducerError):
    """The gateway answered with a problem. `code` is stable; `errors` names the fields at fault."""

    def __init__(self, status: int, code: str, message: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors or []
