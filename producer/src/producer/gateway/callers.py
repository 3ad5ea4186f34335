"""Who makes a request, and what that allows."""

from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request

from taskqueue.tokens import (
    EVERYTHING,
    NOBODY,
    UNLIMITED,
    AuditNote,
    Reach,
    Scope,
    SendLimits,
    Token,
    with_implied,
)

#: Key id of the token that ADMIN_TOKEN names. Those of other tokens are hexadecimal.
ADMIN_KEY_ID = "admin"
_CALLER = "plugplay.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified token; `key_id` is None where no tokens are in use. `scopes` include the implied ones."""

    key_id: str | None
    scopes: frozenset[Scope]
    algorithms: tuple[str, ...] = ()
    limits: SendLimits = UNLIMITED
    #: who it is, for people
    name: str = ""

    @property
    def reads(self) -> Reach:
        """The tasks and dead letters that it may see."""
        return self._reach(Scope.READ_ALL)

    @property
    def changes(self) -> Reach:
        """The tasks that it may cancel, and the dead letters that it may replay and discard."""
        return self._reach(Scope.OPERATE)

    @property
    def sees_whole_audit(self) -> bool:
        return Scope.ADMIN in self.scopes or not self.algorithms

    def _reach(self, of_others: Scope) -> Reach:
        if self.key_id is None:
            return EVERYTHING
        return Reach(self.key_id, others=of_others in self.scopes, algorithms=self.algorithms)


#: Where no tokens are in use.
ANYBODY = Caller(None, frozenset(Scope))
ADMIN = Caller(ADMIN_KEY_ID, frozenset(Scope), name=ADMIN_KEY_ID)


def caller_with(token: Token) -> Caller:
    scopes = with_implied(token.scopes)
    algorithms = () if Scope.ADMIN in scopes else token.algorithms
    return Caller(token.key_id, scopes, algorithms, token.limits, token.name)


def without_admin(caller: Caller) -> Caller:
    """For sessions, which may fall into others' hands: what they can do ends with them."""
    return replace(caller, scopes=caller.scopes - {Scope.ADMIN})


def set_caller(scope: Any, caller: Caller) -> None:
    scope[_CALLER] = caller


def caller_of(request: Request) -> Caller:
    """Of a request that was let in. `app.state.without_token` is None where tokens are in use: nobody is ANYBODY."""
    caller: Caller | None = request.scope.get(_CALLER) or request.app.state.without_token
    if caller is None:
        raise RuntimeError("a request reached its route without having been checked")
    return caller


def audit_note(request: Request, action: str, **params: Any) -> AuditNote:
    """For what this request changes."""
    client = None if request.client is None else request.client.host
    return AuditNote(action, caller_of(request).key_id or NOBODY, params, client)
