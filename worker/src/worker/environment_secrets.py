"""The keys and tokens of an environment: in variables or files that its operator names, else in its data folder."""

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

from runnerlib.contract.identity import RunnerKeys
from runnerlib.service.settings import is_loopback
from worker.errors import BadSecrets
from worker.plan import EnvironmentSecrets
from worker.settings import GATEWAY_SECRETS, KEY_SECRETS, METRICS_SECRETS, WorkerSettings

FOLDER = "secrets"
ADMIN_FILE = "admin-token"
KEYS_FILE = "runner-keys"
_SECRET_BYTES = 32
_MADE = "calls need tokens: the one that allows everything is in {file} (docs/security.md)"
_SHOWN = "; it is shown this once: {token}"


def needs_tokens(settings: WorkerSettings) -> bool:
    """Whether the operator wants tokens, or must have them because others reach what is started."""
    return settings.auth == "tokens" or (settings.auth == "" and not is_loopback(settings.host))


def open_secrets(
    settings: WorkerSettings, data: Path, environment: Mapping[str, str], say: Callable[[str], None], *, show: bool
) -> EnvironmentSecrets:
    """What the operator has given; what is missing, and needed, is made in the data folder. Raises BadSecrets.

    `show`: whether a new admin token is said to a person, and not to a log.
    """
    of_gateway = _given(environment, GATEWAY_SECRETS)
    keys = _given(environment, KEY_SECRETS)
    if needs_tokens(settings):
        folder = data / FOLDER
        if not any(name.startswith("ADMIN_TOKEN") for name in of_gateway):
            of_gateway["ADMIN_TOKEN_FILE"] = str(folder / ADMIN_FILE)
            if (token := _make(folder / ADMIN_FILE)) is not None:
                say(_MADE.format(file=folder / ADMIN_FILE) + (_SHOWN.format(token=token) if show else ""))
        if not keys:
            keys["RUNNER_KEYS_FILE"] = str(folder / KEYS_FILE)
            _make(folder / KEYS_FILE)
    return EnvironmentSecrets(_keys(keys), {**keys, **_given(environment, METRICS_SECRETS)}, of_gateway)


def service_token(data: Path) -> str:
    """What discovery of this environment lets the commands of `worker` in with; empty: nothing is known."""
    given = _given(os.environ, KEY_SECRETS)
    file = data / FOLDER / KEYS_FILE
    with contextlib.suppress(BadSecrets):
        keys = _keys(given or ({"RUNNER_KEYS_FILE": str(file)} if file.exists() else {}))
        return "" if keys is None else keys.service_token()
    return ""


def gateway_token(data: Path) -> str:
    """The caller's token for the gateway, else the one with which the gateway was started here; empty: there is none.

    A file that cannot be read counts as no token: the gateway says what is missing.
    """
    for name in ("PRODUCER_TOKEN", "ADMIN_TOKEN"):
        token = os.environ.get(name, "").strip() or _read(os.environ.get(f"{name}_FILE"))
        if token:
            return token
    return _read(data / FOLDER / ADMIN_FILE)


def _read(file: str | Path | None) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(file).read_text(encoding="utf-8").strip() if file else ""
    return ""


def _given(environment: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name.upper(): value for name, value in environment.items() if name.upper() in names and value}


def _keys(variables: Mapping[str, str]) -> RunnerKeys | None:
    try:
        if (text := variables.get("RUNNER_KEYS")) is None:
            file = variables.get("RUNNER_KEYS_FILE")
            text = None if file is None else Path(file).read_text(encoding="utf-8")
        return None if text is None else RunnerKeys.read(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadSecrets(f"the keys of the environment cannot be used: {why}; see RUNNER_KEYS_FILE") from None


def _make(file: Path) -> str | None:
    """Writes a secret that nobody else can read, unless the file is there; returns it if it was written."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=file.parent, encoding="utf-8") as written:
            written.write(f"{secret}\n")
            written.flush()
            # It is there whole, or not at all, whoever makes it.
            os.link(written.name, file)
    except FileExistsError:
        return None
    except OSError as error:
        raise BadSecrets(f"{file} cannot be written: {error.strerror}; make it by hand, or set AUTH") from None
    return secret
