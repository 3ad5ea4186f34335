"""Where runners get their runnerlib from: the checkout that the worker itself runs from, else the same version."""

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

_DISTRIBUTION = "plugplay-runnerlib"


@dataclass(frozen=True, slots=True)
class RunnerlibSource:
    """Arguments for pip. Another `fingerprint` means another virtual environment."""

    arguments: tuple[str, ...]
    fingerprint: str
    #: versions known to work; the author's own pins win over them
    constraints: Path | None = None


def find_runnerlib() -> RunnerlibSource:
    """How this process got its runnerlib."""
    distribution = metadata.distribution(_DISTRIBUTION)
    direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = urlparse(direct.get("url", ""))
    folder = Path(unquote(url.path))
    if url.scheme != "file" or not folder.is_dir():
        requirement = f"{_DISTRIBUTION}=={distribution.version}"
        return RunnerlibSource(arguments=(requirement,), fingerprint=requirement)
    editable = direct.get("dir_info", {}).get("editable", False)
    lock = folder.parent / "requirements.lock"
    return RunnerlibSource(
        arguments=("--editable", str(folder)) if editable else (str(folder),),
        fingerprint=_digest(folder / "pyproject.toml", lock) + str(folder),
        constraints=lock if lock.is_file() else None,
    )


def _digest(*files: Path) -> str:
    content = hashlib.sha256()
    for file in files:
        content.update(file.read_bytes() if file.is_file() else b"-")
    return content.hexdigest()
