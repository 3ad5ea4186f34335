"""Makes what follows from the secrets of an environment: the tokens of its runners, and the users of its broker.

./build.sh runs it inside the image of runner-discovery, which has all that it needs, whatever this machine has:

    python derive_secrets.py runner NAME... < keys              NAME TOKEN, a line for each runner
    python derive_secrets.py definitions < NAME PASSWORD lines  what RabbitMQ loads when it starts, as JSON
"""

import base64
import hashlib
import json
import os
import sys
from typing import Any, NamedTuple

from runnerlib.contract.identity import RunnerKeys

_SALT_BYTES = 4
_VHOST = "/"


class Rights(NamedTuple):
    """Of a user of the broker: patterns of the names of queues and exchanges."""

    configure: str
    write: str
    read: str


#: Nothing of that kind.
_NONE = "^$"
#: Whoever may write to the default exchange, `amq.default`, reaches every queue.
RIGHTS = {
    # Who looks after the broker, on its pages, too.
    "plugplay": Rights(".*", ".*", ".*"),
    # Declares everything, takes tasks, and answers to whatever queue a sender names.
    "controller": Rights("^tasks([-.].+)?$", r"^(tasks([-.].+)?|amq\.default)$", "^tasks([-.].+)?$"),
    "gateway": Rights(_NONE, "^tasks$", _NONE),
    # Programs that send tasks past the gateway. Answers come by amq.rabbitmq.reply-to, which needs no right.
    "sender": Rights(_NONE, "^tasks(-unrouted)?$", _NONE),
}
_ADMINISTRATOR = "plugplay"


def definitions(passwords: dict[str, str]) -> dict[str, Any]:
    """RabbitMQ's definitions. Raises KeyError for a user without a password."""
    return {
        "vhosts": [{"name": _VHOST}],
        "users": [
            {
                "name": name,
                "password_hash": password_hash(passwords[name]),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["administrator"] if name == _ADMINISTRATOR else [],
            }
            for name in RIGHTS
        ],
        "permissions": [{"user": name, "vhost": _VHOST, **rights._asdict()} for name, rights in RIGHTS.items()],
    }


def password_hash(password: str) -> str:
    """As RabbitMQ computes it: https://www.rabbitmq.com/docs/passwords#computing-password-hash"""
    salt = os.urandom(_SALT_BYTES)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def main(words: list[str]) -> None:
    """Secrets come by standard input: everybody can read command lines."""
    given = sys.stdin.read()
    match words:
        case ["runner", *names]:
            keys = RunnerKeys.read(given)
            print("".join(f"{name} {keys.runner_token(name)}\n" for name in names), end="")
        case ["definitions"]:
            print(json.dumps(definitions(dict(line.split() for line in given.splitlines()))))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
