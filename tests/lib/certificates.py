"""Certificates for tests, made by openssl: an authority, and what it signs."""

import ipaddress
import subprocess
from pathlib import Path
from typing import NamedTuple

_CONFIG = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = test\n"


class Signed(NamedTuple):
    """PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Makes its own certificate in `folder`, and signs others."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._config = folder / "openssl.cnf"
        self._config.write_text(_CONFIG)
        self._own = self._make(
            "authority", [], ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        )

    @property
    def file(self) -> Path:
        return self._own.certificate

    def sign(self, label: str, *names: str) -> Signed:
        """A certificate for these names and addresses."""
        authority = ["-CA", str(self._own.certificate), "-CAkey", str(self._own.key)]
        alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
        extensions = [f"subjectAltName={alternatives}", "basicConstraints=CA:FALSE", "authorityKeyIdentifier=keyid"]
        return self._make(label, authority, extensions)

    def _make(self, label: str, options: list[str], extensions: list[str]) -> Signed:
        made = Signed(self._folder / f"{label}.pem", self._folder / f"{label}.key")
        added = [word for extension in extensions for word in ("-addext", extension)]
        command = ["openssl", "req", "-x509", "-config", str(self._config), "-days", "2", "-nodes", "-batch", *options]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-out", str(made.certificate), "-keyout", str(made.key), *added]
        subprocess.run([*command], check=True, capture_output=True, timeout=60)
        return made


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
