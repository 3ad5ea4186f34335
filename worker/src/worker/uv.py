"""uv with pip's configuration: ``python uv.py`` prints the variables for a shell. Uses the standard library only.

uv does not read pip's configuration files and PIP_* variables. Without the translation a machine with its own package
index, certificate or folder of wheels would install from elsewhere, or not at all.
"""

import ast
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

#: pip's option → uv's variable and the separator of its values. See uv's reference of environment variables.
_TRANSLATED = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "cert": ("SSL_CERT_FILE", ""),
    "client-cert": ("SSL_CLIENT_CERT", ""),
    "no-index": ("UV_NO_INDEX", ""),
    "keyring-provider": ("UV_KEYRING_PROVIDER", ""),
}
#: These change nothing about what is installed.
_WITHOUT_EFFECT = {
    *(
        "break-system-packages",
        "cache-dir",
        "config-file",
        "default-timeout",
        "disable-pip-version-check",
        "no-cache-dir",
        "no-color",
    ),
    *("no-input", "no-warn-script-location", "progress-bar", "quiet", "require-virtualenv", "retries"),
    *("root-user-action", "timeout", "use-feature", "verbose"),
}
#: Sections of pip's configuration that apply to `pip install`; later ones win.
_SECTIONS = ("global", "install", ":env:")


def find_uv() -> Path | None:
    """Returns uv's executable: the one beside this Python, or on PATH."""
    found = shutil.which(str(Path(sys.executable).with_name("uv"))) or shutil.which("uv")
    return None if found is None else Path(found)


def uv_variables(pip_config: str) -> dict[str, str] | None:
    """Translates the output of ``pip config list``. Returns None if an option has no equivalent: use pip then."""
    options: dict[str, str] = {}
    for section in _SECTIONS:
        for line in pip_config.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                options[key.removeprefix(f"{section}.")] = ast.literal_eval(value)
    # pip takes the best version from all indexes, uv by default only looks into the first that has the package.
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for option, value in options.items():
        if option in _TRANSLATED:
            name, separator = _TRANSLATED[option]
            variables[name] = separator.join(value.split()) if separator else value
        elif option == "proxy":
            variables |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), value)
        elif option not in _WITHOUT_EFFECT:
            return None
    return variables


def constraints(variables: Mapping[str, str]) -> list[str]:
    """Words for the command line: with a ``--constraint`` there, uv does not read its variable."""
    return [word for file in variables.get("UV_CONSTRAINT", "").split() for word in ("--constraint", file)]


def read_uv_variables(python: str, environment: Mapping[str, str]) -> dict[str, str] | None:
    """Returns what `uv_variables` makes of the configuration of this Python's pip; None if pip cannot tell it."""
    command = [python, "-I", "-m", "pip", "config", "list", "--disable-pip-version-check"]
    try:
        told = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=True, timeout=30)
    except subprocess.SubprocessError:
        return None
    given = {name: value for name, value in environment.items() if name.startswith("UV_")}
    variables = uv_variables(told.stdout)
    return None if variables is None else variables | given


if __name__ == "__main__":
    variables = read_uv_variables(sys.executable, os.environ)
    if variables is None:
        sys.exit(1)
    print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items()))
