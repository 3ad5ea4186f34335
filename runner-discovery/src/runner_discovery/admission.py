"""Validates registrations, which come from outside, against the limits of the contract. Pure."""

import hashlib
import re
from collections.abc import Sequence

from pydantic import ValidationError

from runner_discovery.errors import BadRegistration, RegistryError, TooLarge
from runner_discovery.records import Offer, offers
from runnerlib.contract import AlgorithmDescription, RunnerLevel, RunnerRegistration, unregistrable
from runnerlib.contract.registry import PLAIN_PREFIX

#: Plain registrations have no boot id.
PLAIN_BOOT = "plain"

_RUNNER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,249}")


def check_runner_id(runner_id: str) -> None:
    """Raises BadRegistration if a runner may not use this id."""
    if not _RUNNER_ID.fullmatch(runner_id) or runner_id.startswith(PLAIN_PREFIX):
        raise BadRegistration(
            "a runner's id must be 1 to 250 of A-Z a-z 0-9 . _ : - and must not begin with 'plain:'; use name-host-port"
        )


def admitted(registration: RunnerRegistration) -> dict[str, Offer]:
    """Returns what a registration offers, by algorithm. Raises RegistryError, with a message for the runner's author.

    Takes tens of milliseconds for a large registration.
    """
    names = [description.name for description in registration.algorithms]
    if len(set(names)) != len(names):
        raise BadRegistration("an algorithm is listed twice; name each one once")
    refused = unregistrable(registration.algorithms)
    if refused:
        raise _refusal(refused)
    return offers(registration.algorithms)


def _refusal(refused: dict[str, str]) -> RegistryError:
    name, reason = next(iter(refused.items()))
    more = f" (and {len(refused) - 1} more algorithms)" if len(refused) > 1 else ""
    kind = TooLarge if " bytes, at most " in reason else BadRegistration
    return kind(f"{name!r} cannot be registered: {reason}{more}")


def plain_runner(host: str, name: str, algorithms: Sequence[str]) -> tuple[RunnerRegistration, dict[str, Offer]]:
    """What a runner that registers itself would have sent, without its algorithms, and those. Raises RegistryError."""
    called = name or host.partition("://")[2][:100]
    try:
        head = RunnerRegistration(name=called, host=host, boot=PLAIN_BOOT, level=RunnerLevel.PLAIN, algorithms=[])
    except ValidationError as error:
        raise BadRegistration(f"the token is of a name that no runner can have: {error.errors()[0]['msg']}") from None
    described = [AlgorithmDescription(name=each) for each in algorithms]
    return head, admitted(head.model_copy(update={"algorithms": described}))


def plain_runner_id(host: str) -> str:
    """Returns the runner id that stands for all plain registrations of a host."""
    return PLAIN_PREFIX + re.sub(r"[^A-Za-z0-9._:-]", "-", host.removeprefix("http://"))


def known_as(runner_id: str, name: str, key_id: str) -> str:
    """The id by which a runner is known. With a token no other name can have it, whatever ids that asks for."""
    return f"{runner_id}~{hashlib.sha256(name.encode()).hexdigest()[:12]}" if key_id else runner_id
