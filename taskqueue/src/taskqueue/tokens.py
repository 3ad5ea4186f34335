"""Tokens of the gateway, the tasks that each reaches, and the audit of what callers changed. Plain data; pure.

A task belongs to the token that submitted it (`submitted_by`); those that came past the gateway belong to none.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

#: Ids that one entry of the audit keeps; of more only how many.
MAX_AUDIT_IDS = 1000
#: `who` of a change that was made without a token.
NOBODY = "none"
_SEAL_BYTES = 16


class Scope(str, Enum):
    """What a token allows."""

    SUBMIT = "submit"
    READ = "read"
    READ_ALL = "read:all"
    OPERATE = "operate"
    ADMIN = "admin"


_IMPLIED: Mapping[Scope, frozenset[Scope]] = MappingProxyType(
    {
        Scope.READ_ALL: frozenset({Scope.READ}),
        Scope.OPERATE: frozenset({Scope.READ_ALL, Scope.READ}),
        Scope.ADMIN: frozenset(Scope),
    }
)


def with_implied(scopes: frozenset[Scope]) -> frozenset[Scope]:
    """The scopes, and those that they include."""
    return scopes.union(*(_IMPLIED.get(scope, frozenset()) for scope in scopes))


def fits(algorithm: str, patterns: Sequence[str]) -> bool:
    """Whether the name fits one of the patterns, whose wildcards are `*` and `?`. Without patterns every name does."""
    return not patterns or any(fnmatchcase(algorithm, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class SendLimits:
    """What may be sent with a token; None: as much as its owner likes.

    Rates hold for each gateway. `burst` is how many tasks may come at once after a rest.
    """

    rate_per_second: float | None = None
    burst: int | None = None
    bytes_per_second: int | None = None
    #: tasks that wait, in all
    most_waiting: int | None = None

    @property
    def has_rates(self) -> bool:
        return self.rate_per_second is not None or self.bytes_per_second is not None


UNLIMITED = SendLimits()


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the store holds it: never its text, only the SHA-256 of it, in hexadecimal."""

    key_id: str
    secret_hash: str
    name: str
    scopes: frozenset[Scope]
    #: patterns of the algorithms it is limited to; empty: all
    algorithms: tuple[str, ...] = ()
    created_at: float = 0.0
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
    limits: SendLimits = UNLIMITED

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Session:
    """What a browser has instead of the token that it was opened with. The store holds SHA-256 sums alone."""

    session_hash: str
    key_id: str
    token_hash: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Reach:
    """The tasks that a caller may see, or change: its own, and with `others` all whose algorithm fits `algorithms`.

    `owner` is the caller's key id. What it cannot reach does not exist for the caller.
    """

    owner: str | None = None
    others: bool = True
    algorithms: tuple[str, ...] = ()

    def includes(self, submitted_by: str | None, algorithm: str) -> bool:
        if submitted_by is not None and submitted_by == self.owner:
            return True
        return self.others and fits(algorithm, self.algorithms)


#: Of a caller that needs no token.
EVERYTHING = Reach()


@dataclass(frozen=True, slots=True)
class AuditNote:
    """Who changes something, for the entry that is written in the transaction of the change.

    Changes with the same `call` share an entry: a call on many dead letters takes several transactions.
    """

    action: str
    who: str = NOBODY
    params: Mapping[str, Any] = field(default_factory=dict)
    #: address of the caller
    client: str | None = None
    call: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What a call changed: how many, and the ids of the first thousand."""

    audit_id: int
    created_at: float
    who: str
    action: str
    params: dict[str, Any]
    count: int
    ids: tuple[str, ...]
    client: str | None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list; None means any."""

    who: str | None = None
    action: str | None = None
    created_from: float | None = None
    created_before: float | None = None


class OwnerSeal:
    """Proves to controllers whose task a message carries.

    Anybody may write headers to a broker. So the owner travels with a code made from it, the task's id and its content,
    by a key that only processes with the database have. What has no valid code has no owner.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, task_id: str, digest: str, owner: str) -> str:
        return f"{owner}.{self._code(task_id, digest, owner)}"

    def owner(self, seal: str, task_id: str, digest: str) -> str | None:
        """The owner that this seal proves for this task; None if it proves nothing."""
        owner, _, code = seal.rpartition(".")
        proves = hmac.compare_digest(code.encode(), self._code(task_id, digest, owner).encode())
        return owner if owner and proves else None

    def _code(self, task_id: str, digest: str, owner: str) -> str:
        # none of the three can contain a line end
        text = "\n".join((task_id, digest, owner))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[: 2 * _SEAL_BYTES]
