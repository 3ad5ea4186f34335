"""What a registration must be like to be taken in. Pure."""

import json
import re

from runner_discovery.errors import BadRegistration, TooLarge
from runnerlib.contract import RunnerRegistration

MAX_SCHEMA_BYTES = 64 * 1024
#: Ids of plain registrations begin with it; a runner that registers itself cannot take one.
PLAIN_PREFIX = "plain:"
#: A plain runner tells no boot id.
PLAIN_BOOT = "plain"

_RUNNER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,249}")


def check_runner_id(runner_id: str) -> None:
    """Raises BadRegistration for an id that no runner may take."""
    if not _RUNNER_ID.fullmatch(runner_id) or runner_id.startswith(PLAIN_PREFIX):
        raise BadRegistration(
            "a runner's id must be 1 to 250 of A-Z a-z 0-9 . _ : - and must not begin with 'plain:'; use name-host-port"
        )


def check_registration(registration: RunnerRegistration) -> None:
    """Raises RegistryError when an algorithm is listed twice or a schema is too large."""
    names = [description.name for description in registration.algorithms]
    if len(set(names)) != len(names):
        raise BadRegistration("an algorithm is listed twice; name each one once")
    for description in registration.algorithms:
        for schema in (description.input_schema, description.output_schema):
            if schema is not None and len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
                raise TooLarge(
                    f"a schema of {description.name!r} has more than {MAX_SCHEMA_BYTES} bytes; "
                    "shorten it, e.g. by fewer enum values or shorter descriptions"
                )


def plain_runner_id(host: str) -> str:
    """The id under which the plain registrations of a host are kept."""
    return PLAIN_PREFIX + re.sub(r"[^A-Za-z0-9._:-]", "-", host.removeprefix("http://"))
