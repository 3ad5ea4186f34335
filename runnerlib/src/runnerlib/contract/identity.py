"""Who a process of the environment is: tokens that are made from one secret key, so that nothing is stored. Pure.

Discovery, controllers and gateways hold the keys. A runner gets a token with its name, and no key.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

#: A key has at least so many characters.
MIN_KEY_CHARACTERS = 32
_RUNNER, _SERVICE = "ppr_", "pps_"
_KEY_ID_CHARACTERS = 12


class RunnerIdentity(NamedTuple):
    """Whose token it is, and which key it was made with."""

    name: str
    key_id: str


class RunnerKeys:
    """The keys of an environment. The first makes tokens, all recognise them, so that one can replace another."""

    def __init__(self, keys: Iterable[str]) -> None:
        #: by their ids, which tell nothing of them
        self._keys = {_mac(key, "id")[:_KEY_ID_CHARACTERS]: key for key in keys}
        if not self._keys:
            raise ValueError("there must be a key")

    @classmethod
    def read(cls, text: str) -> "RunnerKeys":
        """Keys with commas or white space between them. Raises ValueError, with a sentence for the operator."""
        keys = text.replace(",", " ").split()
        if any(len(key) < MIN_KEY_CHARACTERS or not key.isascii() for key in keys):
            raise ValueError(f"each key must have at least {MIN_KEY_CHARACTERS} ASCII characters, taken at random")
        return cls(keys)

    def runner_token(self, name: str) -> str:
        """``ppr_<name, percent-encoded>.<code>``, for the runner of that name and its replicas."""
        return _token_of(name, next(iter(self._keys.values())))

    def service_token(self) -> str:
        """``pps_<code>``: what discovery, controllers, gateways and `worker` show one another."""
        return _SERVICE + _mac(next(iter(self._keys.values())), "service")

    def run_token(self, runner: RunnerIdentity) -> str | None:
        """What a runner asks of those who send it runs; None if its key is none of these."""
        key = self._keys.get(runner.key_id)
        return None if key is None else run_token_of(_token_of(runner.name, key))

    def runner_of(self, token: str) -> RunnerIdentity | None:
        """Whose token it is; None if it is nobody's."""
        name = name_in(token)
        if name is None:
            return None
        for key_id, key in self._keys.items():
            if hmac.compare_digest(token.encode(), _token_of(name, key).encode()):
                return RunnerIdentity(name, key_id)
        return None

    def has(self, key_id: str) -> bool:
        return key_id in self._keys

    def is_service(self, token: str) -> bool:
        return any(
            hmac.compare_digest(token.encode(), (_SERVICE + _mac(key, "service")).encode())
            for key in self._keys.values()
        )


def run_token_of(runner_token: str) -> str:
    """The token that a runner accepts runs with, made from its own."""
    return "ppx_" + _mac(runner_token, "run")


def name_in(runner_token: str) -> str | None:
    """The name that a runner's token claims; None if it is no such token. Discovery can tell whether it is right."""
    if not runner_token.startswith(_RUNNER):
        return None
    name, dot, code = runner_token.removeprefix(_RUNNER).rpartition(".")
    return unquote(name) if dot and name and code else None


def _token_of(name: str, key: str) -> str:
    return f"{_RUNNER}{quote(name, safe='')}.{_mac(key, f'register:{name}')}"


def _mac(key: str, text: str) -> str:
    digest = hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
